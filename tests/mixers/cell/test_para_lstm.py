"""ParaLSTM against the authors' step (tests/oracles/make_classical.py), compiled, by loop and by Newton's method."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.para_lstm import ParaLSTM

WEIGHTS, STORED = numbers("classical", "para_lstm.")
D = 8


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop"), use("newton")], ids=["fast", "loop", "newton"])
def test_equals_the_authors_step(way):
    mixer = ParaLSTM(D).double()
    mixer.load_state_dict(
        {
            "cell.input_weight": WEIGHTS["B"][0].permute(1, 2, 0).flatten(0, 1),
            "cell.weight": WEIGHTS["A"],
            "cell.bias": WEIGHTS["b"].flatten(),
            "cell.params": WEIGHTS["C"],
        }
    )
    # theirs has the cell before what is read
    c, h = STORED["start"].chunk(2, -1)
    cells, reads = STORED["states"].chunk(2, -1)
    with way:
        y, last = mixer(STORED["x"], (h, c))
    assert_close(y, reads, rtol=1e-12, atol=1e-12)
    assert_close(last, (reads[:, -1], cells[:, -1]), rtol=1e-12, atol=1e-12)


def test_newton_finds_the_loops_gradients():
    mixer = ParaLSTM(D).double()
    x = torch.randn(2, 60, D, dtype=torch.float64, requires_grad=True)
    wanted = [x, *mixer.parameters()]
    grads = {}
    for way in ("loop", "newton"):
        with use(way):
            grads[way] = torch.autograd.grad(mixer(x)[0].sin().sum(), wanted)
    for ours, theirs in zip(*grads.values(), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
