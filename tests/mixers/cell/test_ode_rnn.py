"""ODE-RNN: the released forward code flows for the wrong intervals, so its parts are asked one by one.

Standing still it is a GRU (held against onnx in tests/mixers/cell/test_gru.py); a flow alone is torchdiffeq's; a flow
to zero is the exponential decay of GRU-D.
"""

import torch
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock
from recurra.mixers.cell.gru import GRU
from recurra.mixers.cell.gru_d import GRUD
from recurra.mixers.cell.ode_rnn import ODERNN


def moved(mixer):
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return mixer


def test_without_flow_it_is_a_gru():
    mixer, gru = moved(ODERNN(8).double()), GRU(8, reset="before").double()
    with torch.no_grad():
        mixer.weight[1] = 0
        mixer.bias[1] = 0
    given = {"cell.input_weight": mixer.input.weight, "cell.bias": mixer.input.bias}
    gru.load_state_dict(given | {"cell.weight": mixer.recurrent[:, None]})
    x, dt = torch.randn(2, 9, 8, dtype=torch.float64), 5 * torch.rand(2, 9, dtype=torch.float64)
    assert_close(mixer(x, None, Clock(dt=dt))[0], gru(x)[0])


def test_the_flow_comes_first_and_takes_the_step_s_time():
    """With the update gate shut nothing but the flow is left."""
    mixer, x = moved(ODERNN(8).double()), torch.randn(2, 4, 8, dtype=torch.float64)
    dt = 0.5 + torch.rand(2, 4, dtype=torch.float64)
    with torch.no_grad():
        mixer.input.bias[8:16] = 1e3
        (first, second), (hidden, bias), h = mixer.weight, mixer.bias, torch.zeros(2, 8, dtype=torch.float64)
        wanted = []
        for t in range(4):

            def slope(_, h, time=dt[:, t, None]):
                return time * (torch.tanh(h @ first.T + hidden) @ second.T + bias)

            h = odeint(slope, h, torch.tensor([0.0, 1.0]).double(), rtol=1e-10, atol=1e-10)[-1]
            wanted.append(h)
        fine = ODERNN(8, steps=16).double()
        fine.load_state_dict(mixer.state_dict())
        assert_close(fine(x, None, Clock(dt=dt))[0], torch.stack(wanted, 1), rtol=1e-6, atol=1e-6)


def test_a_flow_to_zero_is_the_decay_of_gru_d():
    decaying, small = moved(GRUD(8).double()), 1e-4
    mixer = ODERNN(8, steps=8).double()
    with torch.no_grad():
        decaying.decay_rate.uniform_(0.1, 1)
        decaying.decay_bias.zero_()
        # tanh is linear near zero
        mixer.weight[0] = small * torch.eye(8)
        mixer.weight[1] = torch.diag(-decaying.decay_rate / small)
        mixer.recurrent.copy_(decaying.weight[:, 0])
        mixer.input.load_state_dict(decaying.input.state_dict())
    clock = Clock(dt=0.5 + torch.rand(2, 9, dtype=torch.float64))
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert_close(mixer(x, None, clock)[0], decaying(x, None, clock)[0], rtol=1e-5, atol=1e-6)
