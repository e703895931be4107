"""Elman against torch.nn.RNN."""

import pytest
import torch
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.elman import Elman

D = 7


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("way", ["torch", "loop"])
def test_outputs_states_and_gradients_are_torchs(nonlinearity, way):
    mixer = Elman(D, nonlinearity=nonlinearity).double()
    oracle = torch.nn.RNN(D, D, nonlinearity=nonlinearity, batch_first=True, dtype=torch.float64)
    cell = mixer.cell
    with torch.no_grad():
        cell.input_weight.copy_(oracle.weight_ih_l0)
        cell.weight[0, 0].copy_(oracle.weight_hh_l0)
        cell.bias.copy_(oracle.bias_ih_l0 + oracle.bias_hh_l0)
    x = torch.randn(3, 11, D, dtype=torch.float64, requires_grad=True)
    start = torch.randn(3, D, dtype=torch.float64)
    want, last = oracle(x, start[None])
    with use(way):
        first, state = mixer(x[:, :4], (start,))
        # several tokens on from a carried state: where other libraries go wrong
        second, state = mixer(x[:, 4:], state)
    got = torch.cat([first, second], 1)
    assert_close(got, want)
    assert_close(state[0], last[0])
    ours = torch.autograd.grad(got.sin().sum(), [x, cell.input_weight, cell.weight, cell.bias])
    theirs = torch.autograd.grad(want.sin().sum(), [x, oracle.weight_ih_l0, oracle.weight_hh_l0, oracle.bias_ih_l0])
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.reshape(b.shape), b)


def test_another_nonlinearity_is_refused():
    with pytest.raises(ValueError, match="nonlinearity is 'gelu': it must be one of tanh, relu"):
        Elman(D, nonlinearity="gelu")
