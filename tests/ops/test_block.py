"""Small dense blocks, and what lowers to them: steps of any length, closed forms, and reasons to decline."""

import pytest
import torch
from ops.records import RECORDS, B, H, N
from torch.testing import assert_close

from recurra import Clock
from recurra.ops import Block, Diag, Scan
from recurra.ops.block import chunk as block_chunk, loop as block_loop
from recurra.ops.diag import loop as diag_loop
from recurra.ops.dplr import chunk as dplr_chunk, loop as dplr_loop
from recurra.ops.linear_system import chunk as linear_system_chunk
from recurra.ops.projection import loop as projection_loop
from recurra.ops.scan import prepare


@pytest.mark.parametrize("module", [block_loop, block_chunk])
def test_blocks_of_one_are_a_diagonal(module):
    diag, state = RECORDS["diag"](50, torch.float64)
    read, last = module.scan(Block(diag.decay[..., None, None], diag.drive[..., None]), state[..., None])
    assert_close((read[..., 0], last[..., 0]), diag_loop.scan(diag, state))


@pytest.mark.parametrize("module", [block_loop, block_chunk])
def test_a_turning_block_is_a_complex_number(module):
    diag, state = RECORDS["diag-complex"](50, torch.float64)
    a = diag.decay
    matrix = torch.stack([torch.stack([a.real, -a.imag], -1), torch.stack([a.imag, a.real], -1)], -2)
    read, last = module.scan(Block(matrix, torch.view_as_real(diag.drive)), torch.view_as_real(state))
    want = diag_loop.scan(Diag(a, diag.drive), state)
    assert_close((read, last), tuple(torch.view_as_real(x) for x in want))


def _varying(T):
    record, state = RECORDS["state-space-low-rank"](T, torch.float64)
    return record._replace(step=0.1 + torch.rand(B, T, H, dtype=torch.float64)), state


def test_steps_of_one_length_may_be_said_one_by_one():
    record, state = RECORDS["state-space-low-rank"](20, torch.float64)
    one_by_one = record._replace(step=record.step.expand(B, 20, H))
    assert dplr_chunk.declines(one_by_one, state) == "steps differ in length"
    assert_close(Scan()(one_by_one, state), Scan()(record, state))


def test_a_step_is_the_trapezoids_rule_with_the_whole_matrix():
    record, state = _varying(12)
    # the states with their conjugates, which the low rank mixes
    diagonal, low, write, read = (torch.cat([x, x.conj()], -1) for x in record[2:6])
    matrix = torch.diag_embed(diagonal) - low[..., None] * low.conj()[..., None, :]
    identity = torch.eye(2 * N, dtype=matrix.dtype)
    h, want = torch.cat([state, state.conj()], -1), []
    for x, step in zip(record.x.unbind(1), record.step.unbind(1), strict=True):
        half = step[..., None, None] / 2 * matrix
        right = (identity + half) @ h[..., None] + (step * x)[..., None, None] * write[..., None]
        h = torch.linalg.solve(identity - half, right)[..., 0]
        want.append((read * h).sum(-1).real)
    got, last = Scan()(record, state)
    assert_close((got, last), (torch.stack(want, 1), h[..., :N]))


def test_steps_that_differ_obey_the_law():
    record, state = _varying(9)
    reset = torch.zeros(B, 9, dtype=torch.bool)
    reset[:, 4] = True
    whole, last = Scan()(record, state, Clock(reset))
    first = record._replace(x=record.x[:, :6], step=record.step[:, :6])
    second = record._replace(x=record.x[:, 6:], step=record.step[:, 6:])
    one, between = Scan()(first, state, Clock(reset[:, :6]))
    two, end = Scan()(second, between, Clock(reset[:, 6:]))
    assert_close((torch.cat([one, two], 1), end), (whole, last))
    fresh = record._replace(x=record.x[:, 4:], step=record.step[:, 4:])
    assert_close(Scan()(fresh, torch.zeros_like(state)), (whole[:, 4:], last))
    valid = torch.arange(9) < torch.tensor([[9], [3]])
    read, end = Scan()(record, state, Clock(valid=valid))
    assert (read[1, 3:] == 0).all()
    short = record._replace(x=record.x[:, :3], step=record.step[:, :3])
    assert_close(end[1], Scan()(short, state)[1][1])


def test_steps_that_differ_pass_gradcheck():
    record, state = _varying(3)
    inputs = [x.requires_grad_() for x in (*record[:6], state)]
    assert torch.autograd.gradcheck(lambda *x: dplr_loop.scan(type(record)(*x[:6]), x[6]), inputs)


def test_gaps_are_declined_with_a_reason():
    record, state = RECORDS["state-space-dense"](5, torch.float64)
    gap = torch.tensor([[True, False, True, True, True]]).expand(B, -1)
    held, _ = prepare(record, state, Clock(valid=gap))
    assert "align them first" in (linear_system_chunk.declines(held, state) or "")
    assert linear_system_chunk.declines(record._replace(x=record.x[:, :1]), state) == "a single step"


def test_an_endless_step_forgets_all_but_its_own():
    record, state = RECORDS["projection"](1, torch.float64)
    record = record._replace(
        span=torch.full_like(record.span, torch.inf), feed_hidden=torch.zeros_like(record.feed_hidden)
    )
    record = record._replace(feed_memory=None)
    _, (_, memory) = projection_loop.scan(record, state)
    want = torch.zeros_like(memory)
    want[..., 0] = record.feed[:, 0]
    assert_close(memory, want)


def test_equal_steps_share_their_exponential_and_give_the_same():
    record, state = RECORDS["projection"](70, torch.float64)
    spans = torch.tensor([0.3, 0.7], dtype=torch.float64)[torch.randint(2, (B, 70))]
    for span in (spans, torch.full_like(spans, 0.3)):
        shared = projection_loop.scan(record._replace(span=span), state)
        alone = projection_loop.scan(record._replace(span=span.clone().requires_grad_()), state)
        assert_close(shared, alone)
