"""What the fused cells owe beyond the engine tests: any pattern of steps, and a reason wherever they decline."""

import pytest
import torch
from ops.records import RECORDS, B, D
from torch.testing import assert_close

from recurra import Clock, use
from recurra.ops import Cell, Rule, Scan
from recurra.ops.cell import loop, rules, torch as fused
from recurra.ops.scan import prepare

NAMES = ("cell-lstm", "cell-lstm-project", "cell-gru", "cell-elman-tanh", "cell-elman-relu")
each_fused = pytest.mark.parametrize("name", NAMES)


def _outcome(implementation, record, state, clock):
    """Read, final state, and their gradients with respect to x, every weight and the state."""
    wanted = [x.detach().requires_grad_() for x in (record.drive, record.input_weight, record.weight, *state)]
    record = record._replace(drive=wanted[0], input_weight=wanted[1], weight=wanted[2])
    read, last = implementation.scan(*prepare(record, tuple(wanted[3:]), clock))
    total = sum(x.sin().sum() for x in (read, *last))
    return [read, *last, *torch.autograd.grad(total, wanted, materialize_grads=True)]


@each_fused
@pytest.mark.parametrize("seed", range(8))
def test_any_pattern_of_steps_and_resets_equals_the_loop(name, seed):
    record, state = RECORDS[name](23, torch.float64)
    torch.manual_seed(seed)
    clock = Clock(torch.rand(B, 23) < 0.3, torch.rand(B, 23) < (0.2, 0.8)[seed % 2])
    got, want = (_outcome(x, record, state, clock) for x in (fused, loop))
    assert_close(got, want, rtol=1e-10, atol=1e-10)


@each_fused
@pytest.mark.parametrize("empty", [[0], [1], [0, 1]])
def test_rows_without_a_step_keep_their_state(name, empty):
    record, state = RECORDS[name](5, torch.float64)
    valid = torch.ones(B, 5, dtype=torch.bool)
    valid[empty] = False
    read, last = fused.scan(*prepare(record, state, Clock(torch.ones(B, 5, dtype=torch.bool), valid)))
    assert (read[empty] == 0).all()
    for before, after in zip(state, last, strict=True):
        assert_close(after[empty], before[empty], rtol=0, atol=0)


@each_fused
def test_no_bias_is_a_bias_of_zero(name):
    record, state = RECORDS[name](7, torch.float64)
    got = _outcome(fused, record._replace(bias=None), state, None)
    assert_close(got, _outcome(loop, record._replace(bias=torch.zeros_like(record.bias)), state, None))


@each_fused
def test_a_drive_that_is_there_already_gives_the_same_by_the_loop(name):
    record, state = RECORDS[name](7, torch.float64)
    want = Scan()(record, state)
    assert_close(Scan()(record.driven(), state), want)
    bare = record._replace(bias=None).driven()
    assert_close(Scan()(bare._replace(bias=record.bias), state), want)


@each_fused
def test_autocast_leaves_the_state_wide(name):
    record, state = RECORDS[name](7, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        read, last = Scan()(record, state)
    assert_close((read, last), Scan()(record, state), rtol=0, atol=0)


def test_every_decline_has_its_reason():
    record, state = RECORDS["cell-gru"](3, torch.float64)
    blocks = record._replace(weight=torch.zeros(3, 2, D // 2, D // 2))
    square = torch.zeros(D, D)
    other = record._replace(rule=Rule("mine", rules.gru_after, 3, 3, params=1))
    lstm, _ = RECORDS["cell-lstm"](3, torch.float64)
    reasons = {
        "not mine": other,
        "give x as the drive": record.driven(),
        "not 2 blocks": blocks,
        "not of gru_after": record._replace(project=square),
        "another width": lstm._replace(project=square),
    }
    for reason, case in reasons.items():
        assert reason in (fused.declines(case, state) or "")
        with use("torch"), pytest.raises(ValueError, match=reason):
            Scan()(case, state)


@pytest.mark.parametrize("name", ["cell-lstm-peephole", "cell-gru-before"])
def test_what_torch_lacks_runs_by_the_loop(name):
    record, state = RECORDS[name](3, torch.float64)
    assert "not" in (fused.declines(record, state) or "")
    assert isinstance(record, Cell) and Scan()(record, state)[0].shape == (B, 3, D)
