"""Kernels as torch.compile sees them: the same bits as where they run eagerly, and results that look as was said."""

import pytest
import torch
from ops.records import RECORDS

from recurra.clock import Clock
from recurra.ops import native
from recurra.ops.native import operators
from recurra.ops.scan import IMPLEMENTATIONS, name_of, prepare
from recurra.shapes import Tensor
from recurra.state import leaves

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))

STEPS = 70  # a matrix memory keeps one state for its backward
NARROW = (
    "diag",
    "diag-constant",
    "diag-min-max",
    "outer-key-decay",
    "outer-bonus",
    "delta-head-decay",
    "low-rank-key-decay",
)
WIDE = (
    *NARROW, "diag-complex", "outer-no-decay", "conv", "conv-plain", "selective", "cell-dense", "cell-diagonal",
    "cell-none", "cell-lstm", "liquid", "liquid-complex", "settle", "synapse", "machine-tape", "machine-linked",
)  # fmt: skip
CASES = [(name, torch.float32) for name in WIDE] + [(name, torch.bfloat16) for name in NARROW]


def _float(x):
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _run(name, record, state, reset):
    """Read, last state and the record's gradients; the first state wants none."""
    torch.manual_seed(1)
    leaf = [x.detach().requires_grad_() if _float(x) else x for x in record]
    ready, start = prepare(type(record)(*leaf), state, Clock(reset=torch.rand(2, STEPS) < 0.1) if reset else None)
    module = next(x for x in IMPLEMENTATIONS[type(record)] if name_of(x) == "native")
    assert module.declines(ready, start) is None
    read, last = module.scan(ready, start)
    ends = [read, *leaves(last)]
    grads = torch.autograd.grad(sum(x.abs().square().sum() for x in ends), [x for x in leaf if _float(x)])
    return [x.detach() for x in (*ends, *grads)]


def _given(arguments):
    """Lists of tensors without their history."""
    lists = ([t.detach() if isinstance(t, Tensor) else t for t in x] if isinstance(x, list) else x for x in arguments)
    return tuple(lists)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_an_operator_gives_the_kernels_bits_and_what_it_promised(name, dtype, reset, monkeypatch):
    record, state = RECORDS[name](STEPS, torch.float32)
    record = type(record)(*(x.to(dtype) if _float(x) and not x.is_complex() else x for x in record))
    want, calls = _run(name, record, state, reset), []
    for operator in (operators._scan, operators._scan_backward):

        def call(*arguments, operator=operator):
            calls.append((operator, _given(arguments)))
            return operator(*arguments)

        monkeypatch.setattr(operators, f"_{operator._name}", call)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    got = _run(name, record, state, reset)
    monkeypatch.undo()
    assert len(calls) == 2
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y)
    for operator, arguments in calls:
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
