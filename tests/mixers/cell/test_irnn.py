"""IRNN against torch.nn.RNN, where no unit meets its bound."""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.cell.irnn import HIGHEST, IRNN

D = 7


def test_outputs_states_and_gradients_are_torchs():
    mixer = IRNN(D).double()
    oracle = torch.nn.RNN(D, D, nonlinearity="relu", batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        mixer.cell.weight.add_(0.2 * torch.randn_like(mixer.cell.weight))
        mixer.cell.input_weight.mul_(300)
        oracle.weight_ih_l0.copy_(mixer.cell.input_weight)
        oracle.weight_hh_l0.copy_(mixer.cell.weight[0, 0])
        oracle.bias_hh_l0.zero_()
        mixer.cell.bias.copy_(oracle.bias_ih_l0)
    x, start = torch.randn(3, 11, D, dtype=torch.float64), torch.rand(3, D, dtype=torch.float64)
    want, last = oracle(x, start[None])
    first, state = mixer(x[:, :4], (start,))
    second, state = mixer(x[:, 4:], state)
    got = torch.cat([first, second], 1)
    assert_close(got, want)
    assert_close(state[0], last[0])
    ours = torch.autograd.grad(got.sin().sum(), [mixer.cell.weight, mixer.cell.bias])
    theirs = torch.autograd.grad(want.sin().sum(), [oracle.weight_hh_l0, oracle.bias_ih_l0])
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.reshape(b.shape), b)


def test_it_starts_by_keeping_everything():
    mixer = IRNN(D).double()
    x = torch.zeros(2, 500, D, dtype=torch.float64)
    start = torch.rand(2, D, dtype=torch.float64, requires_grad=True)
    y, _ = mixer(x, (start,))
    assert_close(y[:, -1], start, rtol=0, atol=0)
    (grad,) = torch.autograd.grad(y[:, -1].sum(), start)
    assert_close(grad, torch.ones_like(start), rtol=0, atol=0)
    assert_close(IRNN(D, scale=0.01).cell.weight[0, 0], 0.01 * torch.eye(D))
    assert 0.0005 < float(mixer.cell.input_weight.detach().std()) < 0.002


def test_no_state_is_infinite():
    mixer = IRNN(D)
    with torch.no_grad():
        mixer.cell.weight.mul_(1.5)
    y, _ = mixer(torch.randn(1, 3000, D))
    assert (y <= HIGHEST).all() and (y == HIGHEST).any()


def test_a_scale_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match=r"scale is 0\.0: it must be greater than 0"):
        IRNN(D, scale=0.0)
