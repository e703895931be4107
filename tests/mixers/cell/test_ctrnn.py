"""CTRNN: no package has it with exact leaks, so limits and reductions.

With time constants near zero it is torch's RNN; without recurrence a known exponential; with small steps the
differential equation, which torchdiffeq solves.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock, use
from recurra.mixers.cell.ctrnn import CTRNN


@pytest.mark.parametrize("way", [contextlib.nullcontext, lambda: use("loop")], ids=["fastest", "loop"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_without_inertia_it_is_torchs_rnn(nonlinearity, way):
    mixer = CTRNN(8, nonlinearity=nonlinearity).double()
    with torch.no_grad():
        mixer.log_tau.fill_(-50)
    rnn = nn.RNN(8, 8, nonlinearity=nonlinearity, batch_first=True).double()
    given = {"weight_ih_l0": mixer.input.weight, "weight_hh_l0": mixer.recurrent, "bias_ih_l0": mixer.input.bias}
    rnn.load_state_dict(given | {"bias_hh_l0": torch.zeros(8)})
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    with way():
        assert_close(mixer(x)[0], rnn(x)[0])


def test_without_recurrence_any_step_is_exact():
    mixer = CTRNN(8).double()
    with torch.no_grad():
        mixer.recurrent.zero_()
    x, dt = torch.randn(2, 1, 8, dtype=torch.float64), 3 * torch.rand(2, 30, dtype=torch.float64)
    y, _ = mixer(x.expand(-1, 30, -1), None, Clock(dt=dt))
    gone = dt.cumsum(1)[..., None]
    assert_close(y, mixer.input(x).tanh() * (1 - torch.exp(-gone / mixer.log_tau.exp())))


def test_many_small_steps_follow_the_equation():
    """At the first order, since recurrence is held for a step: half the step, half the error."""
    mixer = CTRNN(8).double()
    x = torch.randn(2, 1, 8, dtype=torch.float64)

    def slope(_, r):
        return (torch.tanh(r @ mixer.recurrent.T + mixer.input(x[:, 0])) - r) / mixer.log_tau.exp()

    with torch.no_grad():
        truth = odeint(slope, torch.zeros(2, 8).double(), torch.tensor([0.0, 2.0]).double(), rtol=1e-9, atol=1e-9)[-1]
        errors = []
        for n in (64, 128, 256):
            clock = Clock(dt=torch.full((2, n), 2.0 / n, dtype=torch.float64))
            errors.append((mixer(x.expand(-1, n, -1), None, clock)[0][:, -1] - truth).abs().max())
    assert errors[2] < 5e-3
    assert 1.9 < errors[0] / errors[1] < 2.1 and 1.9 < errors[1] / errors[2] < 2.1


def test_units_keep_their_signs():
    mixer = CTRNN(10, nonlinearity="relu", excitatory=0.8).double()
    state = (torch.rand(1, 10, dtype=torch.float64, requires_grad=True),)
    with torch.no_grad():
        mixer.input.bias.fill_(10)
        mixer.recurrent.normal_()
    x = torch.zeros(1, 1, 10, dtype=torch.float64)
    influence = torch.autograd.functional.jacobian(lambda r: mixer(x, (r,))[0][0, 0], state[0])[:, 0]
    sent = influence - torch.diag(influence.diag())
    assert (sent[:, :8] >= 0).all() and (sent[:, 8:] <= 0).all() and (sent != 0).any(0).all()


def test_signs_start_in_balance():
    mixer = CTRNN(400, nonlinearity="relu", excitatory=0.8)
    assert_close((mixer.recurrent.abs() * mixer.sign).sum(1).mean(), torch.tensor(0.0), rtol=0, atol=0.3)


class TestNoise:
    def noisy(self, **kw):
        return CTRNN(8, noise=0.5, **kw).double()

    @pytest.mark.parametrize("gaps", [False, True])
    def test_a_cut_changes_nothing(self, gaps):
        mixer, x = self.noisy(), torch.randn(3, 20, 8, dtype=torch.float64)
        clock = Clock(torch.rand(3, 20) < 0.2, torch.rand(3, 20) < 0.7 if gaps else None, 0.5 + torch.rand(3, 20))
        start = mixer.initial_state(3)
        whole, last = mixer(x, start, clock)
        state, pieces = start, []
        for a, b in ((0, 0), (0, 1), (1, 12), (12, 20)):
            y, state = mixer(x[:, a:b], state, clock.cut(a, b))
            pieces.append(y)
        assert_close(torch.cat(pieces, 1), whole)
        for one, other in zip(state, last, strict=True):
            assert_close(one, other)

    def test_rows_carry_their_own(self):
        mixer, x = self.noisy(), torch.zeros(3, 5, 8, dtype=torch.float64)
        start = mixer.initial_state(3)
        y, _ = mixer(x, start)
        assert not torch.allclose(y[0], y[1])
        assert_close(mixer(x[:1], tuple(part[1:2] for part in start))[0][0], y[1])

    def test_it_is_there_in_training_only(self):
        mixer, x = self.noisy().eval(), torch.randn(2, 5, 8, dtype=torch.float64)
        quiet = CTRNN(8).double()
        quiet.load_state_dict(mixer.state_dict())
        assert_close(mixer(x)[0], quiet(x)[0])
        assert not torch.allclose(mixer.train()(x)[0], quiet(x)[0])

    @pytest.mark.parametrize("dt", [0.02, 0.1])
    def test_what_it_does_to_rates_does_not_depend_on_the_step(self, dt):
        """Without recurrence and where relu is the identity, rates are Ornstein-Uhlenbeck's: of variance sigma ** 2."""
        mixer = self.noisy(nonlinearity="relu", slowest=1.0)
        with torch.no_grad():
            mixer.recurrent.zero_()
            mixer.input.bias.fill_(50)
            x = torch.zeros(50, 400, 8, dtype=torch.float64)
            y, _ = mixer(x, None, Clock(dt=torch.full((50, 400), dt)))
            assert_close(y[:, -1].std(), torch.tensor(0.5).double(), rtol=0.15, atol=0)


def test_what_cannot_be_built_is_refused():
    for wrong, words in (
        ({"nonlinearity": "sin"}, "nonlinearity is 'sin': it must be one of tanh, relu"),
        ({"slowest": 0.5}, "slowest is 0.5: it must be at least 1"),
        ({"noise": -1.0}, "noise is -1.0: it must be at least 0"),
        ({"excitatory": 1.0, "nonlinearity": "relu"}, "of 8 units some must excite and some inhibit"),
        ({"excitatory": 0.8}, "excitatory needs nonlinearity='relu'"),
    ):
        with pytest.raises(ValueError, match=words):
            CTRNN(8, **wrong)
