"""coRNN against the cell of the authors' code (tests/oracles/make_oscillators.py), and as time becomes fine."""

import pytest
import torch
from mixers.fine_steps import first_order
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.cornn import CoRNN

WEIGHTS, STORED = numbers("oscillators", "cornn.")
X = numbers("oscillators")[1]["x"]


@pytest.fixture
def mixer():
    mixer = CoRNN(8, step=0.1, stiffness=2.5, damping=0.7).double()
    # side by side: input, velocity, position
    given, velocity, position = WEIGHTS["map"].chunk(3, 1)
    own = {"input.weight": given, "input.bias": WEIGHTS["bias"], "velocity": velocity, "position": position}
    mixer.load_state_dict(own)
    return mixer


@pytest.mark.parametrize("way", ["native", "loop"])
def test_equals_the_authors_cell(mixer, way):
    with use(way):
        first, state = mixer(X[:, :4])
        second, state = mixer(X[:, 4:], state)
    assert_close(torch.cat([first, second], 1), STORED["states"][0], rtol=1e-12, atol=1e-12)
    assert_close(torch.stack(state), STORED["states"][:, :, -1], rtol=1e-12, atol=1e-12)


def test_irregular_steps_are_near_fine_regular_ones(mixer):
    x = X[:, :5]
    first_order(mixer, x)
    # and a clock that only says what is so anyway changes nothing
    assert_close(mixer(x, None, Clock(dt=torch.ones(2, 5, dtype=torch.float64)))[0], mixer(x)[0], rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"stiffness": -1.0}, {"damping": float("nan")}])
def test_what_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is"):
        CoRNN(8, **wrong)
