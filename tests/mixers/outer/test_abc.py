"""Attention with bounded memory against flash-linear-attention (tests/oracles/make_outer_fla.py) and its own sums."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.abc import ABC

WEIGHTS, STORED = numbers("outer_fla", "abc.")


@pytest.fixture
def mixer():
    mixer = ABC(8, heads=2, slots=3).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkvs"]),
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, (_, (keys, values)) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(keys, STORED["state.0"].mT, rtol=1e-12, atol=1e-12)
    assert_close(values, STORED["state.1"], rtol=1e-12, atol=1e-12)


def test_slots_are_means_of_the_past(mixer):
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    _, (total, (keys, _)) = mixer(x)
    _, key, _, control = mixer.project(x).split([8, 8, 8, 6], -1)
    weights = control.unflatten(-1, (2, 3)).softmax(1)
    assert_close(keys, torch.einsum("bthm,bthk->bhmk", weights, key.unflatten(-1, (2, 4))))
    assert_close(total, control.unflatten(-1, (2, 3)).logsumexp(1))


def test_a_large_control_does_not_overflow(mixer):
    x = 1e4 * torch.randn(1, 50, 8, dtype=torch.float64, requires_grad=True)
    y, state = mixer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert all(torch.isfinite(part).all() for part in (y, grad, state[0], *state[1]))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        ABC(10)
