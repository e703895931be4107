"""Choosing an implementation, and what `Scan` does to a record before and after it runs."""

import pytest
import torch
from ops.records import RECORDS, B

import recurra
from recurra.clock import Clock
from recurra.ops import Outer, Scan
from recurra.ops.scan import IMPLEMENTATIONS, choose, name_of, prepare
from recurra.shapes import Tensor
from recurra.state import each, leaves

each_record = pytest.mark.parametrize("name", RECORDS)


def _lower(x):
    return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x


def test_the_definition_is_last_and_never_declines():
    for kind, several in IMPLEMENTATIONS.items():
        names = [name_of(x) for x in several]
        assert names[-1] == "loop" and len(set(names)) == len(names), kind
    for make in RECORDS.values():
        record, state = make(1, torch.float32)
        assert IMPLEMENTATIONS[type(record)][-1].declines(record, state) is None


def test_use_forces_one_and_ends():
    record, state = RECORDS["outer-head-decay"](20, torch.float32)
    with recurra.use("loop"):
        assert name_of(choose(record, state)) == "loop"
        with recurra.use("chunk"):
            assert name_of(choose(record, state)) == "chunk"
        assert name_of(choose(record, state)) == "loop"
    assert choose(record, state) is next(m for m in IMPLEMENTATIONS[Outer] if m.declines(record, state) is None)


def test_use_of_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"there is no implementation 'fast'; there are .*chunk"), recurra.use("fast"):
        raise AssertionError


def test_when_all_decline_every_reason_is_given():
    record, state = RECORDS["outer-head-decay"](1, torch.float32)
    with recurra.use("chunk"), pytest.raises(ValueError, match=r"Outer .*chunk: a single step; loop: only chunk is"):
        Scan()(record, state)


@each_record
def test_low_precision_in_is_wide_inside_and_low_out(name):
    record, state = RECORDS[name](20, torch.float32)
    lower = type(record)(*map(_lower, record))
    read, last = Scan()(lower, state)
    assert read.dtype == lower.output.dtype
    assert [x.dtype for x in leaves(last)] == [x.dtype for x in leaves(state)]
    widened = type(record)(*(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in lower))
    torch.testing.assert_close(read, Scan()(widened, state)[0].to(read.dtype), rtol=0, atol=0)


@each_record
def test_doubles_anywhere_make_all_double(name):
    record, state = RECORDS[name](3, torch.float32)
    _, start = prepare(record, each(lambda x: x.to(torch.complex128 if x.is_complex() else torch.float64), state))
    ready, _ = prepare(record, start)
    wide = (torch.float64, torch.complex128, torch.bool)
    assert all(x.dtype in wide for x in (*ready, *leaves(start)) if isinstance(x, Tensor))


@each_record
def test_a_reset_at_a_step_that_did_not_happen_is_none(name):
    record, state = RECORDS[name](12, torch.float64)
    valid = torch.arange(12)[None] < torch.tensor([[9], [5]])
    reset = torch.rand(B, 12) < 0.3
    want, end = Scan()(record, state, Clock(reset & valid, valid))
    got, last = Scan()(record, state, Clock(reset | ~valid, valid))
    torch.testing.assert_close(_zeroed(got, valid), _zeroed(want, valid))
    for x, y in zip(leaves(last), leaves(end), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def _zeroed(x, valid):
    return x.masked_fill(~valid.view(B, -1, *(1,) * (x.ndim - 2)), 0)
