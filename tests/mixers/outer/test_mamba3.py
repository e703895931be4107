"""Mamba-3 against its authors' code (tests/oracles/make_mamba3.py), with one key a step and with several."""

import math

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.outer.mamba3 import Mamba3

STORED = {rank: numbers("mamba3", f"{rank}.") for rank in (1, 3)}
NAMES = {
    "project.weight": "in_proj.weight",
    "step_bias": "dt_bias",
    "key_norm.weight": "B_norm.weight",
    "query_norm.weight": "C_norm.weight",
    "skip": "D",
    "out.weight": "out_proj.weight",
}
# theirs are heads first
RANKED = {"key_bias": "B_bias", "query_bias": "C_bias"}
MIXED = {"mix_value": "mimo_x", "mix_gate": "mimo_z", "mix_out": "mimo_o"}
each_rank = pytest.mark.parametrize("rank", [1, 3])


def build(rank):
    weights, stored = STORED[rank]
    groups, turning = (2, 0.5) if rank == 1 else (1, 1.0)
    mixer = Mamba3(8, heads=4, state_size=8, groups=groups, rank=rank, turning=turning).double()
    ranked = RANKED | (MIXED if rank > 1 else {})
    mixer.load_state_dict(
        {ours: weights[theirs] for ours, theirs in NAMES.items()}
        | {ours: weights[theirs].transpose(0, 1) for ours, theirs in ranked.items()}
    )
    return mixer, stored


def check_state(state, stored):
    memory, phase, key, value, now = state
    # theirs has written half of the last step; they keep values first, and heads before ranks
    written = memory + now[..., None, None] * torch.einsum("brhn,brhp->bhnp", key, value)
    assert_close(written, stored["memory"].mT, rtol=1e-12, atol=1e-12)
    assert_close(key.squeeze(1), stored["key"].transpose(1, 2) if key.shape[1] > 1 else stored["key"])
    assert_close(value.squeeze(1), stored["value"].transpose(1, 2) if key.shape[1] > 1 else stored["value"])
    assert_close(phase, stored["phase"].remainder(2 * math.pi), rtol=1e-12, atol=1e-12)


@each_way
@each_rank
def test_equals_the_authors_code(rank, way):
    mixer, stored = build(rank)
    with use(way):
        y, state = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    check_state(state, stored)


@each_rank
@pytest.mark.parametrize("cuts", [(1,), (2, 17, 17), tuple(range(1, 40))])
def test_many_tokens_continue_from_a_carried_state(rank, cuts):
    mixer, stored = build(rank)
    state, outputs, start = None, [], 0
    for stop in (*cuts, 40):
        y, state = mixer(stored["x"][:, start:stop], state)
        outputs.append(y)
        start = stop
    assert_close(torch.cat(outputs, 1), stored["y"], rtol=1e-12, atol=1e-12)
    check_state(state, stored)


@each_rank
def test_packed_sequences_and_gaps_equal_the_authors_code_on_each(rank):
    mixer, stored = build(rank)
    y, _ = mixer(stored["x"].flatten(0, 1)[None], None, Clock.packed([0, 40, 80]))
    assert_close(y[0], stored["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)
    valid = torch.zeros(2, 60, dtype=torch.bool)
    valid[:, torch.randperm(60)[:40]] = True
    x = torch.randn(2, 60, 8, dtype=torch.float64).masked_scatter(valid[..., None], stored["x"])
    y, state = mixer(x, None, Clock(valid=valid))
    assert_close(y[valid], stored["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)
    check_state(state, stored)


@each_rank
def test_gradients_cross_a_cut_and_reach_everything(rank):
    mixer, stored = build(rank)
    x, weight = stored["x"].clone().requires_grad_(), torch.randn(2, 40, 8, dtype=torch.float64)
    wanted = [x, *mixer.parameters()]
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, 25] = True
    clock = Clock(reset)
    y, state = mixer(x[:, :13], None, clock.cut(0, 13))
    rest, _ = mixer(x[:, 13:], state, clock.cut(13))
    got = torch.autograd.grad((torch.cat([y, rest], 1) * weight).sum(), wanted)
    whole = torch.autograd.grad((mixer(x, None, clock)[0] * weight).sum(), wanted)
    for mine, theirs in zip(got, whole, strict=True):
        assert (theirs != 0).any()
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_the_phase_stays_within_a_turn_and_does_not_tire():
    mixer = Mamba3(8)
    x = torch.randn(1, 500, 8)
    memory, phase, *last = mixer.initial_state(1)
    assert phase.dtype == torch.float64
    y, (_, after, *_) = mixer(x)
    assert (after >= 0).all() and (after < 2 * math.pi).all() and (after > 0.1).any()
    # where all has turned alike, nothing has changed
    turned, _ = mixer(x, (memory, phase + 1.0, *last))
    assert_close(turned, y, rtol=1e-4, atol=1e-5)


def test_it_starts_as_the_authors_code_does():
    mixer = Mamba3(256, heads=256, rank=2)
    step = F.softplus(mixer.step_bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
    for part, value in (("key_bias", 1), ("query_bias", 1), ("skip", 1), ("mix_gate", 1), ("mix_value", 0.5)):
        assert (getattr(mixer, part) == value).all()
    assert (mixer.mix_out == 0.5).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expand \* width is 20: it must be a multiple of heads, which is 8"):
        Mamba3(10)
    with pytest.raises(ValueError, match="heads is 8: it must be a multiple of groups, which is 3"):
        Mamba3(16, groups=3)
    with pytest.raises(ValueError, match=r"turning is 0\.3: it must be 0.5 or 1"):
        Mamba3(8, turning=0.3)
    with pytest.raises(ValueError, match="state_size is 6: it must be a multiple of 4"):
        Mamba3(8, state_size=6)
    with pytest.raises(ValueError, match="rank is 0: it must be at least 1"):
        Mamba3(8, rank=0)
