"""GRU-D: no package has it as a layer, so reductions and a second derivation.

Without decay it is the GRU held against onnx in tests/mixers/cell/test_gru.py; with it, that GRU one step at a time on
a state that has decayed. tests/mixers/cell/test_ode_rnn.py holds it against a flow.
"""

import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.cell.gru import GRU
from recurra.mixers.cell.gru_d import GRUD


def pair():
    mixer, gru = GRUD(8).double(), GRU(8, reset="before").double()
    given = {"cell.input_weight": mixer.input.weight, "cell.bias": mixer.input.bias, "cell.weight": mixer.weight}
    gru.load_state_dict(given)
    return mixer, gru


def test_without_decay_it_is_a_gru():
    mixer, gru = pair()
    with torch.no_grad():
        mixer.decay_rate.fill_(-1)
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert_close(mixer(x, None, Clock(dt=torch.rand(2, 9, dtype=torch.float64)))[0], gru(x)[0])


def test_between_observations_the_state_decays():
    mixer, gru = pair()
    with torch.no_grad():
        mixer.decay_rate.uniform_(-1, 2)
        mixer.decay_bias.uniform_(-0.5, 0.5)
    x, dt = torch.randn(2, 9, 8, dtype=torch.float64), 2 * torch.rand(2, 9, dtype=torch.float64)
    y, (last,) = mixer(x, None, Clock(dt=dt))
    h = torch.zeros(2, 8, dtype=torch.float64)
    for t in range(9):
        kept = torch.minimum(torch.ones(()), torch.exp(-mixer.decay_rate * dt[:, t, None] - mixer.decay_bias))
        out, (h,) = gru(x[:, t : t + 1], (kept * h,))
        assert_close(y[:, t], out[:, 0])
    assert_close(last, h)
