"""The wave network against the cell of the authors' code (tests/oracles/make_waves.py), and how a pulse travels."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.wave_rnn import WaveRNN

X = numbers("waves")[1]["x"]


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("way", ["native", "torch", "loop"])
def test_equals_the_authors_cell(nonlinearity, way):
    weights, stored = numbers("waves", f"{nonlinearity}.")
    mixer = WaveRNN(12, nonlinearity=nonlinearity).double()
    assert_close(mixer.kernel.detach(), stored["start"], rtol=0, atol=0)
    names = {"input.weight": "Wx.weight", "input.bias": "Wx.bias", "kernel": "Wy.weight", "offset": "Wy.bias"}
    mixer.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    with use(way):
        first, state = mixer(X[:, :4])
        second, state = mixer(X[:, 4:], state)
    assert_close(torch.cat([first, second], 1), stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(state[0], stored["y"][:, -1], rtol=1e-12, atol=1e-12)


def test_a_pulse_goes_round_its_ring_unchanged():
    mixer = WaveRNN(16, channels=2, nonlinearity="relu").double()
    with torch.no_grad():
        mixer.input.bias.zero_()
        mixer.offset.zero_()
    pulse = torch.rand(1, 16, dtype=torch.float64)
    y, _ = mixer(torch.zeros(1, 8, 16, dtype=torch.float64), (pulse,))
    for t in range(8):
        assert_close(y[0, t], pulse[0].view(2, 8).roll(-1 - t, 1).flatten(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"channels": 5}, "multiple of channels"),
        ({"taps": 2}, "taps is 2"),
        ({"taps": 9}, "ring's 8 places"),
        ({"nonlinearity": "gelu"}, "one of tanh, relu"),
    ],
)
def test_what_cannot_be_is_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        WaveRNN(16, **wrong)
