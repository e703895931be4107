"""mLSTM against the authors' package (tests/oracles/make_xlstm.py), in their parallel form and step by step."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.mlstm import MLSTM

WEIGHTS, STORED = numbers("xlstm", "mlstm.")
CUT = 13


@pytest.fixture
def mixer():
    mixer = MLSTM(8, heads=2).double()
    cell = {
        name: WEIGHTS[f"mlstm_cell.{name}"] for name in ("igate.weight", "fgate.weight", "igate.bias", "fgate.bias")
    }
    mixer.load_state_dict(
        {
            "inputs.weight": WEIGHTS["proj_up.weight"],
            "conv.weight": WEIGHTS["conv1d.conv.weight"][:, 0],
            "conv.bias": WEIGHTS["conv1d.conv.bias"],
            **{f"{ours}.weight": WEIGHTS[f"{ours[0]}_proj.weight"] for ours in ("query", "key", "value")},
            **{
                f"gates.{part}": torch.cat([cell[f"igate.{part}"], cell[f"fgate.{part}"]])
                for part in ("weight", "bias")
            },
            "norm.weight": 1 + WEIGHTS["mlstm_cell.outnorm.weight"],
            "skip": WEIGHTS["learnable_skip"],
            "out.weight": WEIGHTS["proj_down.weight"],
        }
    )
    return mixer


@each_way
def test_equals_xlstm(mixer, way):
    with use(way):
        y, (past, peak, memory) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, STORED["past"][:, 1:])
    # their peak starts at zero, ours at nothing: the memories are the same where it does not matter how they are scaled
    theirs = torch.cat([STORED["memory"], STORED["count"]], -1) * STORED["peak"].exp()
    assert_close(memory * peak[..., None, None].exp(), theirs, rtol=1e-12, atol=1e-12)


def test_their_steps_differ_by_epsilon_only(mixer):
    y, _ = mixer(STORED["x"])
    # 1e-6 is added to a denominator that is scaled by their peak, and theirs starts higher
    assert_close(y, STORED["stepped"], rtol=1e-4, atol=1e-5)


def test_many_tokens_continue_from_a_carried_state(mixer):
    _, state = mixer(STORED["x"][:, :CUT])
    y, _ = mixer(STORED["x"][:, CUT:], state)
    assert_close(y, STORED["y"][:, CUT:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_gates_of_any_size_are_finite(shift):
    mixer = MLSTM(16)
    with torch.no_grad():
        mixer.gates.bias[:4] += shift
    x = torch.randn(2, 50, 16, requires_grad=True)
    y, _ = mixer(x)
    y.square().mean().backward()
    assert torch.isfinite(y).all() and x.grad is not None and torch.isfinite(x.grad).all()


def test_it_starts_out_remembering():
    mixer = MLSTM(16)
    assert_close(mixer.gates.bias[4:], torch.tensor([3.0, 4.0, 5.0, 6.0]))
    assert (mixer.gates.weight == 0).all()


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"expand \* width is 16: it must be a multiple of heads, which is 3"):
        MLSTM(8, heads=3)
    with pytest.raises(ValueError, match=r"expand \* width is 16: it must be a multiple of block, which is 5"):
        MLSTM(8, block=5)
