"""DeltaNet against flash-linear-attention (tests/oracles/make_fla.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.delta.deltanet import DeltaNet

WEIGHTS, STORED = numbers("fla", "deltanet.")


@pytest.fixture
def mixer():
    mixer = DeltaNet(8, heads=2).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkvb"]),
            "conv.weight": torch.cat([WEIGHTS[f"{name}_conv1d.weight"][:, 0] for name in "qkv"]),
            "norm.weight": WEIGHTS["o_norm.weight"],
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, (past, memory) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, STORED["state.0"], rtol=1e-12, atol=1e-12)
    assert_close(past, F.linear(STORED["x"], mixer.project.weight[:24])[:, -3:])


@pytest.mark.parametrize("strength", [0.0, -1.0, 2.5])
def test_a_strength_at_which_the_memory_would_grow_is_refused(strength):
    with pytest.raises(ValueError, match=f"strength is {strength}: it must be above 0 and at most 2"):
        DeltaNet(8, strength=strength)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        DeltaNet(10)
