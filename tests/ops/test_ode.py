"""Solvers against solutions that are known, and against torchdiffeq's methods of the same name."""

import sys

import pytest
import torch
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra.ops.ode import ADAPTIVE, TABLEAUS, solve, solver

THEIR_NAMES = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2"}
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
START = torch.linspace(0.05, 0.95, 15, dtype=torch.float64).view(3, 5)
LENGTH = torch.tensor([[0.5], [0.9], [1.4]], dtype=torch.float64)


def logistic(h):
    return h * (1 - h)


def known(start, time):
    return start / (start + (1 - start) * torch.exp(-time))


@pytest.mark.parametrize("method", TABLEAUS)
def test_every_method_has_its_order(method):
    truth = known(START, LENGTH)
    errors = [(solve(solver(method, n, None), logistic, START, LENGTH) - truth).abs().max() for n in (8, 16)]
    assert (errors[0] / errors[1]).log2() == pytest.approx(ORDERS[method], abs=0.2)


@pytest.mark.parametrize("method", THEIR_NAMES)
def test_equals_torchdiffeq(method):
    theirs = odeint(
        lambda _, h: LENGTH * logistic(h), START, torch.linspace(0, 1, 4).double(), method=THEIR_NAMES[method]
    )
    assert_close(solve(solver(method, 3, None), logistic, START, LENGTH), theirs[-1])


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_keep_what_they_are_told_to_hold(method):
    held = torch.rand(3, 1, dtype=torch.float64)
    y = solve(solver(method, 1, 1e-6), lambda h, rate: rate * logistic(h), START, LENGTH, held)
    assert_close(y, known(START, LENGTH * held), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_solved_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="steps is 0: it must be at least 1"):
        solver("rk4", 0, None)
    with pytest.raises(ValueError, match="rk4 has a fixed step"):
        solver("rk4", 1, 1e-3)
    with pytest.raises(ValueError, match="tolerance is None: dopri5 needs one above 0"):
        solver("dopri5", 1, None)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"adaptive methods need torchdiffeq: pip install 'recurra\[ode\]'"):
        solver("dopri5", 1, 1e-3)
