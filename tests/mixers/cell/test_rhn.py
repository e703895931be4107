"""The recurrent highway network against torchrecurrent (tests/oracles/make_classical.py), and by hand at depth 1."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.rhn import RHN

WEIGHTS, STORED = numbers("classical", "rhn.")
D, DEPTH = 8, 3


@pytest.fixture
def mixer():
    """Theirs has a third row of blocks, for a carry gate of its own, which is not used here."""
    mixer = RHN(D, depth=DEPTH).double()
    units = [WEIGHTS[f"units.{layer}.weight"].view(3, D, -1)[:2] for layer in range(DEPTH)]
    biases = [WEIGHTS[f"units.{layer}.bias"].view(3, D)[:2] for layer in range(DEPTH)]
    mixer.load_state_dict(
        {
            "input_weight": units[0][..., :D].flatten(0, 1),
            "weight": torch.cat([unit[..., -D:] for unit in units])[:, None],
            "biases": torch.cat(biases),
        }
    )
    return mixer


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop")], ids=["fastest", "loop"])
def test_equals_torchrecurrent(mixer, way):
    with way:
        first, state = mixer(STORED["x"][:, :7], (STORED["start"],))
        second, (last,) = mixer(STORED["x"][:, 7:], state)
    assert_close(torch.cat([first, second], 1), STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, STORED["y"][:, -1], rtol=1e-12, atol=1e-12)


def test_an_open_highway_carries_the_state_by():
    mixer = RHN(D, transform_bias=-800.0).double()
    start = torch.randn(2, D, dtype=torch.float64)
    y, _ = mixer(torch.randn(2, 50, D, dtype=torch.float64), (start,))
    assert_close(y[:, -1], start, rtol=0, atol=0)


def test_one_layer_by_hand():
    mixer = RHN(D, depth=1).double()
    x, s = torch.randn(2, 9, D, dtype=torch.float64), torch.zeros(2, D, dtype=torch.float64)
    with use("loop"):
        y, _ = mixer(x)
    candidate_in, transform_in = mixer.input_weight.chunk(2)
    for t in range(9):
        candidate = torch.tanh(x[:, t] @ candidate_in.T + s @ mixer.weight[0, 0].T + mixer.biases[0])
        transform = torch.sigmoid(x[:, t] @ transform_in.T + s @ mixer.weight[1, 0].T + mixer.biases[1])
        s = torch.lerp(s, candidate, transform)
        assert_close(y[:, t], s)


def test_no_depth_is_refused():
    with pytest.raises(ValueError, match="depth is 0: it must be at least 1"):
        RHN(D, depth=0)
