"""Gated linear attention against flash-linear-attention (tests/oracles/make_fla.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.gla import GLA

WEIGHTS, STORED = numbers("fla", "gla.")


@pytest.fixture
def mixer():
    mixer = GLA(8, heads=2, rank=3).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat(
                [*(WEIGHTS[f"{name}_proj.weight"] for name in "qkvg"), WEIGHTS["gk_proj.0.weight"]]
            ),
            "forget.weight": WEIGHTS["gk_proj.1.weight"],
            "forget.bias": WEIGHTS["gk_proj.1.bias"],
            "norm.weight": WEIGHTS["g_norm_swish_gate.weight"],
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, memory = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, STORED["state.0"], rtol=1e-12, atol=1e-12)


def test_it_starts_out_remembering():
    mixer = GLA(64)
    log_decay = []
    mixer.scan.register_forward_pre_hook(lambda _, inputs: log_decay.append(inputs[0].log_decay))
    mixer(torch.randn(1, 50, 64))
    assert (log_decay[0] < 0).all() and log_decay[0].mean().exp() > 0.9


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 12: it must be a multiple of twice heads, which is 8"):
        GLA(12)
