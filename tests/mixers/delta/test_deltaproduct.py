"""DeltaProduct against flash-linear-attention (tests/oracles/make_delta.py), its neighbours, and what it can turn."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.delta.deltaproduct import DeltaProduct
from recurra.mixers.delta.gated_deltanet import GatedDeltaNet

CUT = 33


def built(name):
    weights, stored = numbers("delta", f"{name}.")
    fades = name == "deltaproduct"
    mixer = DeltaProduct(8, heads=2, head_size=3, updates=3, fades=fades).double()
    state = {
        "project.weight": torch.cat([weights[f"{x}_proj.weight"] for x in ("qkvgba" if fades else "qkvgb")]),
        "conv.weight": torch.cat([weights[f"{x}_conv1d.weight"][:, 0] for x in "qkv"]),
        "norm.weight": weights["o_norm.weight"],
        "out.weight": weights["o_proj.weight"],
    }
    if fades:
        state |= {"fading.log_rate": weights["A_log"], "fading.step_bias": weights["dt_bias"]}
    mixer.load_state_dict(state)
    return mixer, stored


@each_way
@pytest.mark.parametrize("name", ["deltaproduct", "ungated"])
def test_equals_flash_linear_attention(name, way):
    mixer, stored = built(name)
    with use(way):
        y, (past, memory) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["state.0"], rtol=1e-12, atol=1e-12)
    assert_close(past, F.linear(stored["x"], mixer.project.weight[: sum(mixer.mixed)])[:, -3:])


@pytest.mark.parametrize("name", ["deltaproduct", "ungated"])
def test_many_tokens_continue_from_a_carried_state(name):
    mixer, stored = built(name)
    _, state = mixer(stored["x"][:, :CUT])
    y, (_, memory) = mixer(stored["x"][:, CUT:], state)
    assert_close(y, stored["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["state.0"], rtol=1e-12, atol=1e-12)


def test_packed_sequences_are_separate_on_the_finer_clock():
    mixer, stored = built("deltaproduct")
    y, _ = mixer(stored["x"].flatten(0, 1)[None], None, Clock.packed([0, 70, 140]))
    assert_close(y[0], stored["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)


def test_with_one_update_it_is_gated_deltanet():
    ours, theirs = DeltaProduct(8, updates=1).double(), GatedDeltaNet(8, strength=2.0).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    one, other = ours(x), theirs(x)
    assert_close(one[0], other[0], rtol=1e-12, atol=1e-12)
    assert_close(one[1], other[1], rtol=1e-12, atol=1e-12)


def test_two_full_reflections_turn_the_memory_and_lose_nothing():
    """Without writes a token's two updates are the product of two Householder matrices: a rotation, by hand."""
    mixer = DeltaProduct(8, heads=1, fades=False).double()
    records = []
    mixer.scan.register_forward_pre_hook(lambda _, arguments: records.append(arguments[0]))
    past, memory = mixer.initial_state(1)
    memory = torch.randn_like(memory)
    mixer(torch.randn(1, 1, 8, dtype=torch.float64), (past, memory))
    key = records[0].key[0, :, 0]
    key = key / key.norm(dim=-1, keepdim=True)
    still = records[0]._replace(key=key[None, :, None], erase=2 * key[None, :, None], value=0 * records[0].value)
    _, turned = mixer.scan(still, memory)
    first, second = (torch.eye(8, dtype=torch.float64) - 2 * torch.outer(k, k) for k in key)
    assert_close(turned[0, 0], second @ first @ memory[0, 0], rtol=1e-12, atol=1e-12)
    assert_close(turned.norm(), memory.norm())
    assert torch.det(second @ first) > 0


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="updates is 0: each token needs at least 1"):
        DeltaProduct(8, updates=0)
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4; or give head_size"):
        DeltaProduct(10)
