"""HORN against brainmass's step (tests/oracles/make_oscillators.py), as time becomes fine, and where it starts."""

import math

import pytest
import torch
from mixers.fine_steps import first_order
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.horn import HORN

WEIGHTS, STORED = numbers("oscillators", "horn.")
X = numbers("oscillators")[1]["x"]


@pytest.fixture
def mixer():
    mixer = HORN(8, step=0.5, gain=0.3).double()
    names = {"input.weight": "input", "input.bias": "bias", "recurrent": "recurrent"}
    names |= {"frequency": "frequency", "damping": "damping"}
    mixer.load_state_dict({ours: WEIGHTS[theirs] for ours, theirs in names.items()})
    return mixer


@pytest.mark.parametrize("way", ["native", "loop"])
def test_equals_brainmass(mixer, way):
    with use(way):
        first, state = mixer(X[:1, :4])
        second, (velocity, position) = mixer(X[:1, 4:], state)
    assert_close(torch.cat([first, second], 1)[0], STORED["states"][0], rtol=1e-12, atol=1e-12)
    assert_close(torch.cat([position, velocity]), STORED["states"][:, -1], rtol=1e-12, atol=1e-12)


def test_irregular_steps_are_near_fine_regular_ones(mixer):
    first_order(mixer, X[:, :5], parts=(4, 8, 16))


def test_left_alone_a_unit_rings_at_its_own_frequency():
    """No input and no neighbours: a damped cosine whose turn and fading of a step are known in closed form."""
    mixer = HORN(8, step=0.5).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.zero_()
    velocity, position = torch.zeros(1, 8, dtype=torch.float64), torch.ones(1, 8, dtype=torch.float64)
    y, _ = mixer(torch.zeros(1, 200, 8, dtype=torch.float64), (velocity, position))
    kept = 1 - 2 * 0.5 * mixer.damping
    cosine = (1 + kept - 0.25 * mixer.frequency.square()) / 2 / kept.sqrt()
    time = torch.arange(1.0, 201, dtype=torch.float64)[:, None]
    # p satisfies p_t = (1 + kept - (step omega)^2) p_{t-1} - kept p_{t-2}: a turn by `angle`, shrunk by sqrt(kept)
    angle = torch.acos(cosine)
    slope = ((1 - 0.25 * mixer.frequency.square()) / kept.sqrt() - cosine) / angle.sin()
    want = kept.sqrt() ** time * ((angle * time).cos() + slope * (angle * time).sin())
    assert_close(y[0], want, rtol=1e-9, atol=1e-9)


def test_units_differ_by_the_spread():
    base = 2 * math.pi / 28
    mixer = HORN(4096, spread=2.0)
    assert base / 2 <= mixer.frequency.min() < 0.52 * base and 1.98 * base < mixer.frequency.max() <= 2 * base
    assert mixer.damping.min() >= 0.005 and mixer.damping.max() <= 0.02
    assert (HORN(8, spread=1.0).frequency == torch.tensor(base)).all()
    assert not any(p.shape == (4096,) and "bias" not in name for name, p in mixer.named_parameters())


@pytest.mark.parametrize(
    ("name", "value"), [("step", 0.0), ("gain", -1.0), ("frequency", 0.0), ("damping", -1.0), ("spread", 0.5)]
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        HORN(8, **{name: value})
