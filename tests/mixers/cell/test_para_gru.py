"""ParaGRU against the authors' step (tests/oracles/make_classical.py), compiled, by loop and by Newton's method."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.para_gru import ParaGRU

WEIGHTS, STORED = numbers("classical", "para_gru.")
D = 8


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop"), use("newton")], ids=["fast", "loop", "newton"])
def test_equals_the_authors_step(way):
    mixer = ParaGRU(D).double()
    mixer.load_state_dict(
        {
            "cell.input_weight": WEIGHTS["B"][0].permute(1, 2, 0).flatten(0, 1),
            "cell.weight": WEIGHTS["A"],
            "cell.bias": WEIGHTS["b"].flatten(),
        }
    )
    with way:
        y, (last,) = mixer(STORED["x"], (STORED["start"],))
    assert_close(y, STORED["states"], rtol=1e-12, atol=1e-12)
    assert_close(last, STORED["states"][:, -1], rtol=1e-12, atol=1e-12)


def test_newton_finds_the_loops_gradients():
    mixer = ParaGRU(D).double()
    x = torch.randn(2, 60, D, dtype=torch.float64, requires_grad=True)
    wanted = [x, *mixer.parameters()]
    grads = {}
    for way in ("loop", "newton"):
        with use(way):
            grads[way] = torch.autograd.grad(mixer(x)[0].sin().sum(), wanted)
    for ours, theirs in zip(*grads.values(), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_it_starts_as_the_authors_code_does():
    cell = ParaGRU(1000).cell
    assert_close(cell.bias[:1000], -torch.linspace(0, 1, 1000))
    assert (cell.bias[1000:] == 0).all()
    assert float(cell.weight.detach().std()) == pytest.approx((4 / 5000) ** 0.5, rel=0.1)
