"""IndRNN against torchrecurrent (tests/oracles/make_classical.py) and torch.nn.RNN with a diagonal matrix."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.indrnn import IndRNN

WEIGHTS, STORED = numbers("classical", "indrnn.")
D = 8


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop"), use("newton")], ids=["fast", "loop", "newton"])
def test_equals_torchrecurrent(way):
    mixer = IndRNN(D, bound=10.0).double()
    bias = WEIGHTS["bias_ih"] + WEIGHTS["bias_hh"]
    mixer.load_state_dict({"input.weight": WEIGHTS["weight_ih"], "input.bias": bias, "recurrent": WEIGHTS["vector_u"]})
    with way:
        y, (last,) = mixer(STORED["x"], (STORED["start"],))
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, STORED["y"][:, -1], rtol=1e-12, atol=1e-12)


def test_outputs_and_gradients_are_torchs():
    mixer = IndRNN(D).double()
    oracle = torch.nn.RNN(D, D, nonlinearity="relu", batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        oracle.weight_ih_l0.copy_(mixer.input.weight)
        oracle.weight_hh_l0.copy_(torch.diag(mixer.recurrent))
        oracle.bias_hh_l0.zero_()
        mixer.input.bias.copy_(oracle.bias_ih_l0)
    x = torch.randn(3, 11, D, dtype=torch.float64)
    got, want = mixer(x)[0], oracle(x)[0]
    assert_close(got, want)
    ours = torch.autograd.grad(got.sin().sum(), [mixer.input.weight, mixer.recurrent])
    theirs = torch.autograd.grad(want.sin().sum(), [oracle.weight_ih_l0, oracle.weight_hh_l0])
    assert_close(ours[0], theirs[0])
    assert_close(ours[1], theirs[1].diagonal())


def test_what_a_unit_keeps_is_bounded_and_still_learns():
    free, held = IndRNN(D).double(), IndRNN(D).double()
    with torch.no_grad():
        free.recurrent.fill_(1.0)
    held.load_state_dict(free.state_dict())
    with torch.no_grad():
        held.recurrent.fill_(3.0)
    x = torch.randn(2, 9, D, dtype=torch.float64)
    got, want = held(x)[0], free(x)[0]
    assert_close(got, want)
    ours, theirs = (torch.autograd.grad(y.sum(), m.recurrent)[0] for y, m in ((got, held), (want, free)))
    assert_close(ours, theirs)


def test_a_bound_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match=r"bound is -1\.0: it must be greater than 0"):
        IndRNN(D, bound=-1.0)
