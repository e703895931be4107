"""Newton's method in time beyond the engine tests: two states, what it cannot solve, and what it declines."""

import logging

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock, use
from recurra.ops import Cell, Rule, Scan
from recurra.ops.cell import loop, newton, rules
from recurra.ops.scan import choose, name_of, prepare

D, B = 6, 3


def gated(drive, recur, state, scale):
    """A GRU whose units do not mix."""
    (h,) = state
    z, r = torch.sigmoid(drive[0] + recur[0]), torch.sigmoid(drive[1] + recur[1])
    n = torch.tanh(drive[2] + scale * r * recur[2])
    return n - h, ((1 - z) * n + z * h,)


def pendulum(drive, recur, state, stiffness):
    """Two states that drive each other."""
    position, velocity = state
    velocity = 0.98 * velocity + 0.2 * (torch.tanh(drive[0] + recur[0]) - stiffness * position)
    position = position + 0.2 * velocity
    return position * velocity, (position, velocity)


def cells(drive, recur, state):
    """An LSTM whose units do not mix; the read is not a state."""
    h, c = state
    i, f, g = (a + b for a, b in zip(drive, recur, strict=True))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.relu(g)
    return c - h, (torch.tanh(c), c)


RULES = {
    "gated": Rule("gated", gated, 3, 3, params=1, operator="diagonal"),
    "pendulum": Rule("pendulum", pendulum, 1, 1, state=2, params=1, operator="diagonal"),
    "cells": Rule("cells", cells, 3, 3, state=2, operator="diagonal"),
}


def _make(rule, T, dtype=torch.float64):
    wide = lambda *shape: torch.randn(shape, dtype=torch.float64).to(dtype)  # noqa: E731
    params = torch.rand(rule.params, D, dtype=torch.float64).to(dtype) if rule.params else None
    return Cell(rule, wide(B, T, rule.drive * D), wide(rule.recur, D) / 1.5, params), tuple(
        wide(B, D) for _ in range(rule.state)
    )


def _run(module, record, state, clock):
    wanted = [x.detach().requires_grad_() for x in (*record[1:4], *state) if x is not None]
    leaves = iter(wanted)
    record = record._replace(**{k: next(leaves) for k in record._fields[1:4] if getattr(record, k) is not None})
    ready, start = prepare(record, tuple(leaves), clock)
    assert module.declines(ready, start) is None
    read, last = module.scan(ready, start)
    total = sum(x.sin().sum() for x in (read, *last))
    return [read, *last, *torch.autograd.grad(total, wanted)]


@pytest.mark.parametrize("how", ["plain", "reset", "valid", "both"])
@pytest.mark.parametrize("T", [2, 3, 16, 97])
@pytest.mark.parametrize("name", RULES)
def test_values_and_gradients_equal_the_loops(name, T, how, caplog):
    record, state = _make(RULES[name], T)
    reset = torch.rand(B, T) < 0.2 if how in ("reset", "both") else None
    clock = Clock(reset, torch.rand(B, T) < 0.7 if how in ("valid", "both") else None)
    got, want = (_run(x, record, state, clock) for x in (newton, loop))
    assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert not caplog.records, "it was Newton's method that ran"


def test_many_steps_in_single_precision():
    record, state = _make(RULES["gated"], 3000, torch.float32)
    lower, higher = (
        Cell(*(x.to(d) if isinstance(x, torch.Tensor) else x for x in record)) for d in (torch.float32, torch.float64)
    )
    truth = loop.scan(higher, tuple(x.double() for x in state))[0]
    error = [float((x.scan(lower, state)[0].double() - truth).abs().max()) for x in (newton, loop)]
    assert error[0] <= 2 * error[1] + 1e-6


def test_what_it_cannot_solve_runs_by_the_loop_and_says_so(caplog):
    """A chaotic map: Newton's guesses do not settle within fewer steps than the loop takes."""

    def logistic(drive, recur, state):
        h = 3.9 * state[0] * (1 - state[0]) + 0 * drive[0]
        return h, (h,)

    record = Cell(Rule("logistic", logistic, 1, 0, operator="none"), torch.zeros(1, 400, 3, dtype=torch.float64))
    state = (torch.tensor([[0.2, 0.3, 0.7]], dtype=torch.float64),)
    with caplog.at_level(logging.WARNING, "recurra"):
        read, last = newton.scan(record, state)
    assert_close((read, last), loop.scan(record, state), rtol=0, atol=0)
    assert "logistic" in caplog.text and "the loop runs instead" in caplog.text


def test_it_runs_only_when_asked_for():
    record, state = _make(RULES["gated"], 5)
    assert name_of(choose(record, state)) != "newton"
    with use("newton"):
        assert name_of(choose(record, state)) == "newton"
        assert_close(Scan()(record, state), loop.scan(record, state))


def test_every_decline_has_its_reason():
    record, state = _make(RULES["gated"], 5)
    dense = record._replace(rule=rules.GRU_AFTER, weight=torch.zeros(3, 1, D, D))
    three = record._replace(rule=Rule("three", gated, 3, 3, state=3, params=1, operator="diagonal"))
    mixing = record._replace(rule=Rule("mixing", lambda d, r, s, p: (d[0].cumsum(-1), s), 3, 3, 1, 1, "diagonal"))
    reasons = {
        "R is dense": dense,
        "not of 3 states": three,
        "projection": record._replace(project=torch.zeros(D, D)),
        "single step": record._replace(drive=record.drive[:, :1]),
        "cumsum": mixing,
    }
    for reason, case in reasons.items():
        assert reason in (newton.declines(case, state) or "")


def test_a_second_derivative_is_refused():
    record, state = _make(RULES["gated"], 5)
    drive = record.drive.requires_grad_()
    (grad,) = torch.autograd.grad(newton.scan(record, state)[0].square().sum(), drive, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
