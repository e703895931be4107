"""Flow equivariance, exactly; and FERNN against the cell of the authors' code (tests/oracles/make_waves.py)."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.fernn import FERNN

X = numbers("waves")[1]["x"]


@pytest.mark.parametrize("way", ["native", "loop"])
def test_equals_the_authors_cell(way):
    weights, stored = numbers("waves", "flows.")
    mixer = FERNN(12, fastest=2).double()
    mixer.load_state_dict(weights)
    with use(way):
        first, state = mixer(X[:, :4])
        second, (h,) = mixer(X[:, 4:], state)
    assert_close(torch.cat([first, second], 1), stored["states"].amax(2), rtol=1e-12, atol=1e-12)
    assert_close(h, stored["states"][:, -1].flatten(1), rtol=1e-12, atol=1e-12)


def _flow(x, speed, channels):
    """Every frame moved by `speed` places for every step that has passed."""
    frames = x.unflatten(-1, (channels, -1)).unbind(1)
    return torch.stack([frame.roll(speed * t, -1) for t, frame in enumerate(frames)], 1).flatten(-2)


@pytest.mark.parametrize("speed", [-2, -1, 1, 2, 3])
def test_a_moving_input_is_a_moving_state_of_another_velocity(speed):
    """The loop's sums are in another order for another place: equal to a rounding, which is exact for a symmetry."""
    mixer, fastest, steps = FERNN(24, channels=3, fastest=3).double(), 3, 11
    x = torch.randn(2, steps, 24, dtype=torch.float64)
    still, moving = (mixer(given)[1][0].unflatten(-1, (7, 3, 8)) for given in (x, _flow(x, speed, 3)))
    for velocity in range(-fastest, fastest + 1):
        if abs(velocity - speed) <= fastest:
            want = still[:, velocity - speed + fastest].roll(speed * (steps - 1), -1)
            assert_close(moving[:, velocity + fastest], want, rtol=1e-13, atol=1e-13)


def test_one_velocity_alone_is_not_equivariant_to_flow_but_to_shifts():
    mixer = FERNN(16, fastest=0).double()
    x = torch.randn(1, 9, 16, dtype=torch.float64)

    def shift(x):
        return x.unflatten(-1, (2, -1)).roll(3, -1).flatten(-2)

    assert_close(mixer(shift(x))[0], shift(mixer(x)[0]), rtol=1e-13, atol=1e-13)
    assert (mixer(_flow(x, 1, 2))[0] - _flow(mixer(x)[0], 1, 2)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"channels": 5}, "multiple of channels"), ({"fastest": -1}, "fastest is -1"), ({"taps": 4}, "taps is 4")],
)
def test_what_cannot_be_is_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        FERNN(16, **wrong)
