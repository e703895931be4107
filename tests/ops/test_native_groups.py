"""Kernels that take features, neurons or rows in groups: any number of them, and any number of threads."""

import pytest
import torch
from ops.records import RECORDS
from ops.test_engines import _run

from recurra.clock import Clock
from recurra.ops import Liquid, Projection, Settle, Synapse, native
from recurra.ops.projection import rules
from recurra.ops.scan import IMPLEMENTATIONS, name_of
from recurra.state import each, leaves

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


def _normal(*shape, dtype):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def _liquid(B, T, D, N, dtype=torch.float64):
    decay, write, read = torch.complex(*_normal(2, 3, D, N, dtype=dtype)).unbind(0)
    limit = (0.1 + torch.rand(D, N, dtype=torch.float64)).to(dtype)
    state = torch.complex(*_normal(2, B, D, N, dtype=dtype))
    return Liquid(_normal(B, T, D, dtype=dtype), decay / (1 + decay.abs()), 0.1 * write, limit, read), state


def _synapse(B, T, D, N, dtype=torch.float64):
    conductance, leak, capacitance, span = (
        (0.1 + torch.rand(*shape, dtype=torch.float64)).to(dtype) for shape in ((D + N, N), (N,), (N,), (B, T))
    )
    gates, current = _normal(3, D + N, N, dtype=dtype), _normal(N, dtype=dtype)
    x, state = _normal(B, T, D, dtype=dtype), _normal(B, N, dtype=dtype)
    return Synapse(x, span, *gates, conductance, current, leak, capacitance, 2), state


def _settle(B, T, D, loops, dtype=torch.float64):
    weights, drive = _normal(D, D, dtype=dtype) / D, _normal(B, T, D, dtype=dtype)
    state = _normal(B, D, dtype=dtype), 0.1 * _normal(B, D * D, dtype=dtype)
    return Settle(drive, weights, _normal(2, D, dtype=dtype), 0.9, 0.1, loops), state


def _projection(B, T, U, N, dtype=torch.float64):
    """Two signals, a gate, and memories that fade."""
    shapes = (B, T, 2), (B, T, 2 * U), (2, U), (2, 2 * N), (2 * U, U), (2 * U, 2 * N)
    feed, drive, *weights = (_normal(*shape, dtype=dtype) / 4 for shape in shapes)
    generator = 0.2 * _normal(N, N, dtype=dtype) / N - torch.eye(N, dtype=dtype)
    span = (0.1 + torch.rand(B, T, dtype=torch.float64)).to(dtype)
    state = _normal(B, U, dtype=dtype), _normal(B, 2, N, dtype=dtype)
    return Projection(feed, drive, span, generator, rules.gated, *weights), state


def _native(record, state, clock=None):
    """Read, last state and all gradients."""
    got = _run(_implementation(record, "native"), record, state, clock)
    assert not isinstance(got, str), got
    return got


def _implementation(record, name):
    return next(module for module in IMPLEMENTATIONS[type(record)] if name_of(module) == name)


def _resets(record, rate=0.2):
    return Clock(torch.rand(record.output.shape[:2]) < rate)


MAKERS = {"liquid": _liquid, "synapse": _synapse, "settle": _settle, "projection": _projection}


SIZES = {
    **dict.fromkeys(("liquid", "synapse"), ((1, 3, 5), (4, 16, 17), (5, 33, 16), (7, 1, 40))),
    "projection": ((1, 1, 1), (3, 16, 16), (2, 33, 17), (1, 130, 3)),
    "settle": ((1, 1, 1), (3, 16, 2), (2, 33, 1), (1, 130, 3)),
}


@pytest.mark.parametrize("T", [1, 9, 65])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("name", MAKERS)
def test_any_number_of_rows_and_features(name, which, T):
    B, D, N = SIZES[name][which]
    record, state = MAKERS[name](B, T, D, N)
    clock = _resets(record)
    for x, y in zip(
        _native(record, state, clock), _run(_implementation(record, "loop"), record, state, clock), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


# Large enough that threads do share it: small work stays on one
LARGE = {"liquid": (1, 600, 70, 10), "synapse": (10, 40, 5, 32), "settle": (3, 300, 130, 1)}


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", LARGE)
def test_threads_change_nothing(name, threads):
    record, state = MAKERS[name](*LARGE[name])
    clock = _resets(record, 0.01)
    want = _native(record, state, clock)
    torch.set_num_threads(threads)
    try:
        got = _native(record, state, clock)
    finally:
        torch.set_num_threads(1)
    for place, (x, y) in enumerate(zip(got, want, strict=True)):
        if name == "settle" and place == 4:  # the gradient of R is one product of torch's
            torch.testing.assert_close(x, y)
        else:
            assert torch.equal(x, y)


@pytest.mark.parametrize("name", ["liquid", "liquid-complex", "synapse", "settle"])
def test_a_state_is_read_and_left_alone(name):
    record, state = RECORDS[name](5, torch.float32)
    before = each(torch.clone, state)
    with torch.no_grad():
        _implementation(record, "native").scan(record, state)
    assert all(torch.equal(x, y) for x, y in zip(leaves(state), leaves(before), strict=True))
