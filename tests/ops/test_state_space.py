"""What blocks of state spaces owe beyond the engine tests: memory, slow decays over long times, many resets."""

import pytest
import torch
from largest import Largest
from torch.testing import assert_close

from recurra import Clock, use
from recurra.ops import Scan, StateSpace
from recurra.ops.scan import prepare
from recurra.ops.state_space import chunk, loop, native

BLOCKS = pytest.mark.parametrize("blocks", [chunk, native], ids=["chunk", "native"])


def _record(steps, rates, dtype=torch.float64, features=4):
    kind = dtype.to_complex()
    a = torch.complex(-rates, torch.linspace(0, 3, len(rates), dtype=torch.float64)).expand(features, -1)
    c = torch.randn(features, len(rates), dtype=torch.complex128)
    x = torch.randn(1, steps, features, dtype=torch.float64)
    return StateSpace(x.to(dtype), a.to(kind), c.to(kind)), torch.zeros(1, features, len(rates), dtype=kind)


@BLOCKS
def test_states_exist_once_a_block(blocks):
    record, state = _record(64 * chunk.LENGTH, torch.rand(32, dtype=torch.float64), torch.float32)
    record.x.requires_grad_()
    with Largest() as largest:
        read, last = blocks.scan(record, state)
        (read.sum() + last.abs().sum()).backward()
    # at every step they would be 64 times as many
    every = record.x.nbytes * 32 * 2
    assert 0 < largest.nbytes <= every / 16


@BLOCKS
@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-2, 1.0, 100.0])
def test_long_runs_of_one_rate_keep_three_digits_in_float32(rate, blocks):
    record, state = _record(40_000, torch.full((3,), rate, dtype=torch.float64), torch.float32, features=2)
    exact = StateSpace(*(x.to(torch.complex128 if x.is_complex() else torch.float64) for x in record[:3]))
    got, last = blocks.scan(record, state)
    want, end = chunk.scan(exact, state.to(torch.complex128))
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    assert (last - end).abs().max() < 1e-4 * end.abs().max()


@BLOCKS
@pytest.mark.parametrize("chance", [0.02, 0.5, 1.0])
def test_many_resets_in_one_block(chance, blocks):
    record, state = _record(150, torch.rand(5, dtype=torch.float64))
    state = torch.randn_like(state)
    ready, start = prepare(record, state, Clock(torch.rand(1, 150) < chance))
    assert_close(blocks.scan(ready, start), loop.scan(ready, start), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("complex_", [False, True])
def test_any_number_of_threads_gives_the_same_bits(complex_):
    torch.manual_seed(0)
    # work enough for three threads, and more blocks than are taken at once
    record, state = _record(65 * 64, torch.rand(5, dtype=torch.float64), torch.float32, features=40)
    if not complex_:
        record, state = record._replace(log_decay=record.log_decay.real, read=record.read.real), state.real
    leaves = [x.detach().clone().requires_grad_() for x in (*record[:3], torch.randn(40), state)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            read, last = native.scan(StateSpace(*leaves[:4]), leaves[4])
            results.append([read, last, *torch.autograd.grad(read.sum() + last.abs().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_every_decline_has_its_reason():
    record, state = _record(5, torch.rand(3, dtype=torch.float64))
    gaps = record.hold(torch.tensor([[True, False, True, True, True]]))
    reasons = {
        "single": (record._replace(x=record.x[:, :1]), state),
        "all real or all complex": (record, state.real),
        "align": (gaps, state),
    }
    for reason, (case, start) in reasons.items():
        assert reason in (chunk.declines(case, start) or "")
    with use("loop"):
        read, _ = Scan()(gaps, state)
    assert (read[:, 1] == 0).all()
