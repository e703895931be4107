"""The neural ODE against torchdiffeq's adaptive solution of its own equation, and against itself on finer clocks."""

import pytest
import torch
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock
from recurra.mixers.cell.neural_ode import NeuralODE


@pytest.fixture
def mixer():
    mixer = NeuralODE(8).double()
    with torch.no_grad():
        mixer.weight.normal_(std=0.7)
        mixer.bias.normal_()
    return mixer


def copy_of(mixer, **kw):
    copy = NeuralODE(8, **kw).double()
    copy.load_state_dict(mixer.state_dict())
    return copy


def test_equals_torchdiffeq_at_irregular_steps(mixer):
    x, dt = torch.randn(2, 5, 8, dtype=torch.float64), 0.5 + torch.rand(2, 5, dtype=torch.float64)
    (first, second), h, wanted = mixer.weight, torch.zeros(2, 8, dtype=torch.float64), []
    with torch.no_grad():
        for t in range(5):
            held = mixer.input(x[:, t])

            def slope(_, h, held=held, time=dt[:, t, None]):
                return time * (torch.tanh(h @ first.T + held) @ second.T + mixer.bias[0])

            h = odeint(slope, h, torch.tensor([0.0, 1.0]).double(), rtol=1e-10, atol=1e-10)[-1]
            wanted.append(h)
        truth, clock = torch.stack(wanted, 1), Clock(dt=dt)
        errors = [(copy_of(mixer, steps=n)(x, None, clock)[0] - truth).abs().max() for n in (4, 8, 16)]
        assert errors[2] < 1e-4
        # the fourth order
        assert 12 < errors[0] / errors[1] < 22 and 12 < errors[1] / errors[2] < 22
        adaptive = copy_of(mixer, method="dopri5", tolerance=1e-10)
        assert_close(adaptive(x, None, clock)[0], truth, rtol=1e-8, atol=1e-8)


def test_a_step_is_as_many_small_ones(mixer):
    x, dt = torch.randn(2, 4, 8, dtype=torch.float64), 0.5 + torch.rand(2, 4, dtype=torch.float64)
    fine = Clock(dt=dt.repeat_interleave(5, 1) / 5)
    y, _ = mixer(x.repeat_interleave(5, 1), None, fine)
    assert_close(copy_of(mixer, steps=5)(x, None, Clock(dt=dt))[0], y[:, 4::5])


def test_rows_of_an_adaptive_solution_do_not_touch(mixer):
    adaptive = copy_of(mixer, method="dopri5", tolerance=1e-3)
    x = torch.randn(2, 2, 8, dtype=torch.float64)
    x[0] *= 100
    assert_close(adaptive(x)[0][1:], adaptive(x[1:])[0], rtol=1e-11, atol=1e-11)


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match="method is 'rk5': it must be one of euler, midpoint, heun, rk4, adaptive_heun"
    ):
        NeuralODE(8, method="rk5")
