"""The law inside segments, for every memory over them and what they can be set to, with segments of four steps."""

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock, state as states
from recurra.mixers.segment.armt import ARMT
from recurra.mixers.segment.block_recurrent import BlockRecurrent
from recurra.mixers.segment.infini_attention import InfiniAttention
from recurra.mixers.segment.lm2 import LM2
from recurra.mixers.segment.rmt import RMT
from recurra.mixers.segment.temporal_latent_bottleneck import TemporalLatentBottleneck
from recurra.mixers.segment.titans_mac import TitansMAC
from recurra.mixers.segment.transformer_xl import TransformerXL
from recurra.parts import segment

B, T, D = 3, 21, 8
MAKE = {
    "infini": lambda: InfiniAttention(D, segment=4),
    "infini delta": lambda: InfiniAttention(D, segment=4, delta=True),
    "infini of one step": lambda: InfiniAttention(D, segment=1),
    "rmt": lambda: RMT(D, segment=4),
    "armt": lambda: ARMT(D, segment=4, key_size=2),
    "xl": lambda: TransformerXL(D, segment=4, memory=6),
    "xl of none": lambda: TransformerXL(D, segment=4, memory=0),
    "xl compressive": lambda: TransformerXL(D, segment=4, memory=4, compressed=3, rate=2),
    "block": lambda: BlockRecurrent(D, segment=4),
    "bottleneck": lambda: TemporalLatentBottleneck(D, segment=4, states=3),
    "lm2": lambda: LM2(D, segment=4, slots=3),
    "titans": lambda: TitansMAC(D, segment=4, tokens=2),
}
each_memory = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def build(make):
    mixer = make().double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return mixer


def ragged():
    """Resets and gaps, more of them in each row."""
    chance = torch.rand(2, B, T, generator=torch.Generator().manual_seed(0))
    return Clock(chance[0] < 0.12, chance[1] < torch.tensor([[0.9], [0.7], [0.4]]))


def same(one, other, **kw):
    assert_close(list(states.leaves(one)), list(states.leaves(other)), **kw)


@each_memory
def test_every_cut_changes_nothing_for_rows_at_different_places(make):
    mixer, x, clock = build(make), torch.randn(B, T, D, dtype=torch.float64), ragged()
    with torch.no_grad():
        whole, last = mixer(x, None, clock)
        for at in range(1, T, 2):
            first, state = mixer(x[:, :at], None, clock.cut(0, at))
            second, end = mixer(x[:, at:], state, clock.cut(at))
            assert_close(torch.cat([first, second], 1), whole)
            same(end, last)


@each_memory
def test_rows_and_sequences_are_as_if_apart(make):
    mixer, x, clock = build(make), torch.randn(B, T, D, dtype=torch.float64), ragged()
    with torch.no_grad():
        y, last = mixer(x, None, clock)
        assert (y[~clock.valid] == 0).all()
        for row in range(B):
            own = clock.valid[row].nonzero()[:, 0]
            begun = clock.reset[row, own].nonzero()[:, 0].tolist()
            for steps in own.tensor_split(begun):
                if len(steps):
                    alone, end = mixer(x[row : row + 1, steps])
                    assert_close(y[row, steps], alone[0])
            same(states.rows(last, [row]), end)


@each_memory
def test_gradients_of_steps_equal_gradients_of_the_whole(make):
    mixer, clock = build(make), ragged()
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    wanted = [x, *mixer.parameters()]
    whole = torch.autograd.grad(mixer(x, None, clock)[0].sin().sum(), wanted, allow_unused=True)
    state, y = None, []
    for at in range(T):
        step, state = mixer(x[:, at : at + 1], state, clock.cut(at, at + 1))
        y.append(step)
    steps = torch.autograd.grad(torch.cat(y, 1).sin().sum(), wanted, allow_unused=True)
    for one, other in zip(whole, steps, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(other, one, rtol=1e-6, atol=1e-9)


@each_memory
def test_a_state_has_the_same_bytes_however_long_the_past(make):
    mixer = build(make)
    with torch.no_grad():
        _, early = mixer(torch.randn(1, 3, D, dtype=torch.float64))
        _, late = mixer(torch.randn(1, 400, D, dtype=torch.float64), early)
    assert states.nbytes(early) == states.nbytes(late) == states.nbytes(mixer.initial_state(1))


@each_memory
def test_a_full_segment_leaves_nothing_open(make):
    mixer = build(make)
    with torch.no_grad():
        _, (_, (kept, past)) = mixer(torch.randn(2, 8, D, dtype=torch.float64))
    assert (kept == 0).all() and past.tolist() == [0, 0]


@each_memory
def test_how_many_segments_are_read_together_changes_nothing(make, monkeypatch):
    mixer, x, clock = build(make), torch.randn(B, T, D, dtype=torch.float64), ragged()
    with torch.no_grad():
        whole, last = mixer(x, None, clock)
        monkeypatch.setattr(segment, "AT_ONCE", 2)
        few, end = mixer(x, None, clock)
    assert_close(few, whole)
    same(end, last)
