"""The neural CDE against torchcde (tests/oracles/make_torchcde.py), whose rectilinear path this is."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.cell.neural_cde import NeuralCDE

WEIGHTS, STORED = numbers("torchcde")


def theirs(**kw):
    """A mixer with their weights: time is their first channel and our last."""
    mixer = NeuralCDE(4, channels=2, **kw).double()
    outer, bias = WEIGHTS["field.outer.weight"].unflatten(0, (3, 4)), WEIGHTS["field.outer.bias"].unflatten(0, (3, 4))
    inner, inner_bias = WEIGHTS["field.inner.weight"], WEIGHTS["field.inner.bias"]
    mixer.load_state_dict(
        {
            # their path has two channels; our mixer takes them out of four features
            "path.weight": torch.eye(2, 4, dtype=torch.float64),
            "start.weight": WEIGHTS["start.weight"],
            "start.bias": WEIGHTS["start.bias"],
            "weight": torch.cat([inner[None], outer[1:], outer[:1]]),
            "bias": torch.cat([inner_bias[None], bias[1:], bias[:1]]),
        }
    )
    return mixer


X, CLOCK = torch.nn.functional.pad(STORED["x"], (0, 2), value=1.0), Clock(dt=STORED["dt"])


@pytest.mark.parametrize(("method", "order"), [("midpoint", 2), ("rk4", 4)])
def test_equals_torchcde(method, order):
    errors = [(theirs(method=method, steps=n)(X, None, CLOCK)[0] - STORED["y"]).abs().max().item() for n in (8, 16, 32)]
    assert errors[2] < (1e-3 if order == 2 else 1e-6)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.3)


def test_an_adaptive_method_is_as_exact_as_it_is_told():
    y, _ = theirs(method="dopri5", tolerance=1e-9)(X, None, CLOCK)
    assert_close(y, STORED["y"], rtol=1e-6, atol=1e-6)


def test_seeing_the_same_again_is_only_time():
    """A step in which the path stands still is as many small ones."""
    coarse, fine = theirs(method="rk4", steps=6), theirs(method="rk4")
    _, state = fine(X[:, :3])
    same = X[:, 2:3]
    one, _ = coarse(same, state, Clock(dt=torch.full((2, 1), 1.2, dtype=torch.float64)))
    many, _ = fine(same.expand(-1, 6, -1), state, Clock(dt=torch.full((2, 6), 0.2, dtype=torch.float64)))
    assert_close(one[:, 0], many[:, -1])


def test_the_pace_of_time_matters_only_to_the_channel_of_time():
    """Reparameterisation: with that channel shut, any clock gives the same."""
    mixer = theirs()
    with torch.no_grad():
        mixer.weight[-1] = 0
        mixer.bias[-1] = 0
    assert_close(mixer(X, None, CLOCK)[0], mixer(X)[0])


def test_a_path_without_channels_is_refused():
    with pytest.raises(ValueError, match="channels is 0: it must be at least 1"):
        NeuralCDE(8, channels=0)
