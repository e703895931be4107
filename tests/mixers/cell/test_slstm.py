"""sLSTM against the authors' package (tests/oracles/make_xlstm.py)."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.slstm import SLSTM

WEIGHTS, STORED = numbers("xlstm", "slstm.")
CUT = 13


@pytest.fixture
def mixer():
    mixer = SLSTM(8, heads=2).double()
    mixer.load_state_dict(
        {
            "conv.weight": WEIGHTS["conv1d.conv.weight"][:, 0],
            "conv.bias": WEIGHTS["conv1d.conv.bias"],
            # what they name fgate drives the input gate, and igate the forget gate
            "input.weight": WEIGHTS["fgate.weight"],
            "forget.weight": WEIGHTS["igate.weight"],
            "candidate.weight": WEIGHTS["zgate.weight"],
            "gate.weight": WEIGHTS["ogate.weight"],
            "weight": STORED["recurrent"].permute(2, 0, 3, 1),
            "bias": STORED["bias"].transpose(0, 1).flatten(1),
            "norm.weight": 1 + WEIGHTS["group_norm.weight"],
        }
    )
    return mixer


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop")], ids=["fastest", "loop"])
def test_equals_xlstm(mixer, way):
    with way:
        y, (past, cell) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, STORED["past"])
    assert_close(torch.stack(cell), STORED["cell"], rtol=1e-12, atol=1e-12)


def test_many_tokens_continue_from_a_carried_state(mixer):
    _, state = mixer(STORED["x"][:, :CUT])
    y, (_, cell) = mixer(STORED["x"][:, CUT:], state)
    assert_close(y, STORED["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(torch.stack(cell), STORED["cell"], rtol=1e-12, atol=1e-12)


def test_a_row_begins_by_itself(mixer):
    """Where the package asks whether the whole batch is at its beginning."""
    reset = torch.zeros(2, 30, dtype=torch.bool)
    reset[1, CUT] = True
    y, _ = mixer(STORED["x"], None, Clock(reset))
    assert_close(y[0], STORED["y"][0], rtol=1e-12, atol=1e-12)
    assert_close(y[1, CUT:], mixer(STORED["x"][1:, CUT:])[0][0])


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_gates_of_any_size_are_finite(shift):
    mixer = SLSTM(16)
    with torch.no_grad():
        mixer.bias[0] += shift
    x = torch.randn(2, 20, 16, requires_grad=True)
    y, _ = mixer(x)
    y.square().mean().backward()
    assert torch.isfinite(y).all() and x.grad is not None and torch.isfinite(x.grad).all()


def test_it_starts_as_the_authors_code_does():
    first, last = (SLSTM(16, heads=2, layer=layer, depth=3) for layer in (0, 2))
    for mixer in (first, last):
        assert (mixer.weight == 0).all() and (mixer.bias[[0, 2, 3]] == 0).all()
        assert_close(mixer.bias[1, [0, 7, 8, 15]], torch.tensor([5.0, -7.0, 5.0, -7.0]))
    assert (first.bias[1] <= last.bias[1]).all() and (first.bias[1] < last.bias[1]).any()


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        SLSTM(10)
