"""cosFormer against its authors' code (tests/oracles/make_cosformer.py); what it may not be asked."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.outer.cosformer import CosFormer

WEIGHTS, STORED = numbers("cosformer")


@pytest.fixture
def mixer():
    mixer = CosFormer(8, heads=2, length=40).double()
    both = {f"project.{kind}": torch.cat([WEIGHTS[f"{n}_proj.{kind}"] for n in "qkv"]) for kind in ("weight", "bias")}
    mixer.load_state_dict(both | {"out.weight": WEIGHTS["out_proj.weight"], "out.bias": WEIGHTS["out_proj.bias"]})
    return mixer


@each_way
def test_equals_the_authors_code(mixer, way):
    with use(way):
        y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)


def test_many_tokens_continue_from_a_carried_state(mixer):
    _, state = mixer(STORED["x"][:, :13])
    y, (_, position) = mixer(STORED["x"][:, 13:], state)
    assert_close(y, STORED["y"][:, 13:], rtol=1e-12, atol=1e-12)
    assert position.tolist() == [40, 40]


def test_a_sequence_longer_than_the_length_is_refused_and_a_new_one_is_not(mixer):
    x = STORED["x"]
    _, state = mixer(x)
    with pytest.raises(ValueError, match="a sequence is longer than length, which is 40"):
        mixer(x[:, :1], state)
    reset, valid = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    reset[:, 1], valid[:, 0] = True, False
    y, (_, position) = mixer(x[:, :3], state, Clock(reset, valid))
    assert_close(y[:, 1:], mixer(x[:, 1:3])[0])
    assert position.tolist() == [2, 2]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        CosFormer(10)
    with pytest.raises(ValueError, match="length is 0: it must be at least 1"):
        CosFormer(8, length=0)
