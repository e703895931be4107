"""Discretisations against closed forms, and against each other where the step is short."""

import pytest
import torch
from torch.testing import assert_close

from recurra.ops.discretise import bilinear, zero_order_hold

RATE = torch.tensor([-0.5 + 3j, -2.0 + 0j, -0.01 - 1j], dtype=torch.complex128)
STEP = torch.tensor(0.3, dtype=torch.float64)


def test_zero_order_hold_is_the_matrix_exponential():
    """Of the rate and the input as one system, the input constant: no division by the rate in it."""
    for rate, decay, write in zip(RATE, *zero_order_hold(RATE, STEP), strict=True):
        whole = torch.zeros(2, 2, dtype=RATE.dtype)
        whole[0] = torch.stack([rate, torch.ones_like(rate)])
        whole = torch.linalg.matrix_exp(STEP * whole)
        assert_close(torch.stack([decay, write]), whole[0])


def test_bilinear_solves_the_trapezoid():
    decay, write = bilinear(RATE, STEP)
    h, x = torch.randn(3, dtype=RATE.dtype), torch.randn(3, dtype=RATE.dtype)
    new = decay * h + write * x
    assert_close(new - h, STEP * (RATE * (h + new) / 2 + x))


def test_short_steps_agree_with_the_hold_to_third_order():
    errors = []
    for step in (STEP / 30, STEP / 60):
        got, want = bilinear(RATE, step), zero_order_hold(RATE, step)
        errors.append(max(float((x - y).abs().max()) for x, y in zip(got, want, strict=True)))
    assert errors[0] / errors[1] == pytest.approx(2**3, rel=0.05)


def test_a_slow_rate_keeps_its_digits():
    decay, write = zero_order_hold(torch.tensor(-1e-7), torch.tensor(1e-3))
    assert decay == 1 and write.item() == pytest.approx(1e-3, rel=1e-6)
