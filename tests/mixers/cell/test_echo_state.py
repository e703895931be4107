"""The echo state network against reservoirpy (tests/oracles/make_reservoir.py); what is drawn; what it forgets."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.echo_state import EchoState

WEIGHTS, STORED = numbers("reservoir")
X, TARGET = STORED["x"][None], STORED["target"][None]


@pytest.fixture
def mixer():
    mixer = EchoState(3, units=12, leak=0.3).double()
    mixer.load_state_dict(mixer.state_dict() | WEIGHTS)
    return mixer


@pytest.mark.parametrize("way", ["native", "loop"])
def test_the_reservoir_is_theirs(mixer, way):
    with torch.no_grad(), use(way):
        # an output that is the reservoir's first three units
        mixer.read.weight.copy_(torch.eye(3, 15))
        mixer.read.bias.zero_()
        first, state = mixer(X[:, :23])
        second, (h,) = mixer(X[:, 23:], state)
    assert_close(torch.cat([first, second], 1)[0], STORED["states"][:, :3], rtol=1e-12, atol=1e-12)
    assert_close(h[0], STORED["states"][-1], rtol=1e-12, atol=1e-12)


def test_the_fit_is_theirs(mixer):
    mixer.fit(X, TARGET, penalty=0.05, washout=10)
    assert_close(mixer.read.weight.detach(), STORED["read"].T.contiguous(), rtol=1e-8, atol=1e-8)
    assert_close(mixer.read.bias.detach(), STORED["offset"].flatten(), rtol=1e-8, atol=1e-8)


def test_steps_that_did_not_happen_are_not_learned_from(mixer):
    gaps = torch.rand(1, 80) < 0.25
    gaps[0, gaps[0].nonzero()[20:, 0]] = False
    missing = int(gaps.sum())
    x, target = torch.randn(2, 1, 60 + missing, 3, dtype=torch.float64).unbind(0)
    valid = ~gaps[:, : 60 + missing]
    steps = int(valid.sum())
    x[valid], target[valid] = X[0, :steps], TARGET[0, :steps]
    mixer.fit(x, target, Clock(valid=valid), penalty=0.05, washout=10)
    got = mixer.read.weight.detach().clone()
    mixer.fit(X[:, :steps], TARGET[:, :steps], penalty=0.05, washout=10)
    assert_close(got, mixer.read.weight.detach(), rtol=1e-9, atol=1e-9)


def test_it_learns_to_recall_in_one_pass():
    """What was said five steps ago, of an input that is noise."""
    mixer = EchoState(8, units=200, scale=0.1, leak=1.0).double()
    x = torch.randn(1, 1500, 8, dtype=torch.float64)
    x[..., 1:] = 0
    target = x.roll(5, 1)
    mixer.fit(x[:, :1000], target[:, :1000], penalty=1e-8, washout=50)
    y, _ = mixer(x)
    error = (y - target)[:, 1000:, 0].square().mean() / target[:, 1000:, 0].square().mean()
    assert error < 1e-3


def test_the_reservoir_is_drawn_from_its_seed_alone():
    one = EchoState(8, seed=3)
    torch.manual_seed(99)
    two, other = EchoState(8, seed=3), EchoState(8, seed=4)
    assert torch.equal(one.recurrent, two.recurrent) and not torch.equal(one.recurrent, other.recurrent)
    assert [name for name, _ in one.named_parameters()] == ["read.weight", "read.bias"]
    assert_close(torch.linalg.eigvals(one.recurrent.double()).abs().max().item(), 0.9, rtol=1e-5, atol=0)
    assert one.input_weight.abs().max() <= 0.5
    assert 0.05 < (EchoState(32, density=0.1).recurrent != 0).double().mean() < 0.15


def test_it_forgets_where_it_started():
    """The property that it is named for: whatever it began from, only inputs are left in it."""
    mixer = EchoState(8).double()
    x, start = torch.randn(1, 400, 8).double(), torch.randn(1, 32, dtype=torch.float64)
    (_, (one,)), (_, (other,)) = mixer(x), mixer(x, (start,))
    assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"), [("units", 0), ("radius", 0.0), ("scale", -1.0), ("leak", 0.0), ("leak", 1.5), ("density", 0.0)]
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        EchoState(8, **{name: value})
