"""QRNN against the paper's equations over torch's own convolution, and against its neighbours: there is no package."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.diag.mingru import MinGRU
from recurra.mixers.diag.qrnn import QRNN


def pooled(mixer, x, size, pooling):
    """Every step of the equations, in order."""
    # taps in time's order: ours has the present input's first
    taps = mixer.window.weight.unflatten(1, (size, -1)).flip(1).transpose(1, 2)
    maps = F.conv1d(F.pad(x.transpose(1, 2), (size - 1, 0)), taps, mixer.window.bias).transpose(1, 2)
    z, f, *more = maps.chunk({"f": 2, "fo": 3, "ifo": 4}[pooling], -1)
    z, f, *more = (z.tanh(), f.sigmoid(), *(gate.sigmoid() for gate in more))
    c, reads = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        c = f[:, t] * c + (more[1][:, t] if pooling == "ifo" else 1 - f[:, t]) * z[:, t]
        reads.append(c if pooling == "f" else more[0][:, t] * c)
    return torch.stack(reads, 1), c


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_equals_a_convolution_and_a_loop(pooling, size):
    mixer = QRNN(8, pooling=pooling, size=size).double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    y, (past, c) = mixer(x)
    want, last = pooled(mixer, x, size, pooling)
    assert_close(y, want)
    assert_close(c, last)
    assert len(past) == size - 1
    for back, kept in enumerate(past, 1):
        assert_close(kept, x[:, -back])


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_a_wide_convolution_obeys_the_clock(pooling):
    mixer = QRNN(8, pooling=pooling, size=4).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64)
    y, state = mixer(x, None, Clock.packed([0, 2, 3, 20]))
    assert_close(y, torch.cat([mixer(part)[0] for part in (x[:, :2], x[:, 2:3], x[:, 3:])], 1))
    pieces = []
    state = None
    for at in range(20):
        piece, state = mixer(x[:, at : at + 1], state, Clock.packed([0, 2, 3, 20]).cut(at, at + 1))
        pieces.append(piece)
    assert_close(torch.cat(pieces, 1), y)


def test_seeing_one_input_it_is_a_minimal_gru_of_squashed_candidates():
    mixer, neighbour = QRNN(8, pooling="f", size=1).double(), MinGRU(8).double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    with torch.no_grad():
        # tanh of a small number is that number, to its third power
        mixer.window.weight[:8].mul_(1e-4)
        mixer.window.bias[:8].mul_(1e-4)
        for kind in ("weight", "bias"):
            candidate, forget = getattr(mixer.window, kind).chunk(2)
            getattr(neighbour.candidate, kind).copy_(candidate)
            getattr(neighbour.update, kind).copy_(-forget)
    assert_close(mixer(x)[0], neighbour(x)[0], rtol=1e-6, atol=1e-11)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="pooling is 'of': it must be one of f, fo, ifo"):
        QRNN(8, pooling="of")
    with pytest.raises(ValueError, match="size is 0: the convolution must see at least 1 input"):
        QRNN(8, size=0)
