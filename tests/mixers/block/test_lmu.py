"""The LMU's memory against SciPy's (tests/oracles/make_hippo.py), its cell against a loop of the paper's own equations.

keras-lmu, the authors' package, needs TensorFlow, and its defaults are another cell: it is not an oracle here.
"""

import numpy as np
import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.block.lmu import LMU

_, NUMBERS = numbers("hippo")


def _open(mixer):
    """What feeds the memory is the first feature alone."""
    with torch.no_grad():
        mixer.feed.weight.zero_()[:, 0] = 1
        mixer.feed_hidden.zero_()
        mixer.feed_memory.zero_()
    return mixer


def _inputs():
    x = torch.randn(1, 40, 8, dtype=torch.float64)
    x[0, :, 0] = NUMBERS["inputs"]
    return x


def test_the_memory_equals_scipys():
    mixer, x = _open(LMU(8, order=6, window=7.0).double()), _inputs()
    for steps in (1, 2, 40):
        _, (_, memory) = mixer(x[:, :steps])
        assert_close(memory[0, 0], NUMBERS["delay"][steps - 1], rtol=1e-11, atol=1e-11)


def test_the_cell_is_the_papers():
    mixer = LMU(8, order=5, window=9.0, channels=2).double()
    with torch.no_grad():
        mixer.feed_memory.normal_(std=0.1)
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    y, (h, m) = mixer(x)
    # the matrix by a fine Euler, as no exponential is
    order = 5
    a = np.array(
        [[(2 * i + 1) * (-1.0 if i < j else (-1.0) ** (i - j + 1)) for j in range(order)] for i in range(order)]
    )
    b = np.array([(2 * i + 1) * (-1.0) ** i for i in range(order)])
    hidden, memory, parts = np.zeros(8), np.zeros((2, order)), 1 << 22
    names = ("feed.weight", "feed_hidden", "feed_memory", "drive.weight", "recur_hidden", "recur_memory")
    e_x, e_h, e_m, w_x, w_h, w_m = (mixer.get_parameter(name).detach().numpy() for name in names)
    turn = np.linalg.matrix_power(np.eye(order) + a / (9.0 * parts), parts)
    for t in range(12):
        u = e_x @ x[0, t].numpy() + e_h @ hidden + e_m @ memory.ravel()
        # a constant u is at rest where the memory is what makes A m + b u nothing
        rest = np.linalg.solve(a, -np.outer(b, u)).T
        memory = (memory - rest) @ turn.T + rest
        hidden = np.tanh(w_x @ x[0, t].numpy() + w_h @ hidden + w_m @ memory.ravel())
        assert np.abs(y[0, t].detach().numpy() - hidden).max() < 1e-5
    assert_close(h, y[:, -1])
    assert np.abs(m[0].detach().numpy() - memory).max() < 1e-5 * np.abs(memory).max()


def test_it_remembers_what_was_a_share_of_the_window_ago():
    mixer = _open(LMU(8, order=12, window=50.0).double())
    time = torch.arange(200, dtype=torch.float64)
    signal = torch.sin(2 * torch.pi * time / 60)
    x = torch.zeros(1, 200, 8, dtype=torch.float64)
    x[0, :, 0] = signal
    _, (_, memory) = mixer(x)
    for share in (0.2, 0.5, 0.8):
        decoded = np.polynomial.legendre.legval(2 * share - 1, memory[0, 0].detach().numpy())
        # held steps lag by half of one
        ago = np.sin(2 * np.pi * (199.5 - 50 * share) / 60)
        assert abs(decoded - ago) < 0.02


def test_irregular_steps_are_fine_regular_ones():
    mixer = _open(LMU(8, order=6, window=11.0).double())
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    times = torch.tensor([1, 3, 2, 5, 1, 1, 4])
    _, (_, coarse) = mixer(x, None, Clock(dt=times.double().expand(2, -1)))
    _, (_, fine) = mixer(x.repeat_interleave(times, 1))
    assert_close(coarse, fine)
    _, (_, half) = mixer(x.repeat_interleave(2 * times, 1), None, Clock(dt=torch.full((2, 34), 0.5).double()))
    assert_close(half, fine)


@pytest.mark.parametrize("wrong", [{"order": 0}, {"channels": 0}, {"window": 0.0}, {"window": float("inf")}])
def test_what_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is"):
        LMU(8, **wrong)
