"""A stream in pieces, with the state handed across: every architecture stays finite, of one size, and grows no faster
than a sum.

`test_long` has the numbers in float32 against float64; `benchmarks/stream_all.py` goes on for a million steps, with the
resident memory and how fast neighbouring states part.
"""

import pytest
import torch

from recurra import MIXERS, state as states

WIDTH, PIECES, PIECE = 8, 10, 2048
# these run by a loop in Python or by inner steps, where fewer steps must do
BY_LOOP = ("hippo", "rmt", "armt", "temporal_latent_bottleneck", "block_recurrent", "miras", "moneta", "memora")
BY_LOOP += ("titans_mac",)
# what adds for ever and forgets nothing grows as the number of steps does, here ten times; nothing may grow faster
BOUND = 2.0 * PIECES


def largest(state):
    return max((float(x.abs().max()) for x in states.leaves(state) if x.numel() and not _counts(x)), default=0.0)


def _counts(x):
    return not (x.is_floating_point() or x.is_complex())


@torch.no_grad()
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [name for name in MIXERS if not MIXERS[name].grows])
def test_a_state_stays_finite_of_one_size_and_grows_no_faster_than_a_sum(name):
    mixer, state, sizes = MIXERS[name](WIDTH).eval(), None, []
    piece = PIECE // 16 if name in BY_LOOP else PIECE
    for _ in range(PIECES):
        y, state = mixer(torch.randn(1, piece, WIDTH), state)
        assert torch.isfinite(y).all()
        sizes.append((states.nbytes(state), largest(state)))
    assert len({size for size, _ in sizes}) == 1
    assert max(most for _, most in sizes) <= BOUND * sizes[0][1]
