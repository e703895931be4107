"""Gated DeltaNet against transformers (make_gated_deltanet.py) and flash-linear-attention (make_fla.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.delta.gated_deltanet import GatedDeltaNet

CUT = 33


def by_transformers():
    """Qwen3-Next's layer: its projections are interleaved by head."""
    weights, stored = numbers("gated_deltanet")
    mixer = GatedDeltaNet(8, heads=2, head_size=3).double()
    parts = weights["in_proj_qkvz.weight"].unflatten(0, (2, 18)).split([3, 3, 6, 6], 1)
    write, forget = weights["in_proj_ba.weight"].unflatten(0, (2, 2)).unbind(1)
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([*(part.flatten(0, 1) for part in parts), write, forget]),
            "conv.weight": weights["conv1d.weight"][:, 0],
            "fading.log_rate": weights["A_log"],
            "fading.step_bias": weights["dt_bias"],
            "norm.weight": weights["norm.weight"],
            "out.weight": weights["out_proj.weight"],
        }
    )
    return mixer, stored


def by_flash_linear_attention():
    weights, stored = numbers("fla", "gated_deltanet.")
    mixer = GatedDeltaNet(8, heads=2, head_size=3, strength=2.0).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([weights[f"{name}_proj.weight"] for name in "qkvgba"]),
            "conv.weight": torch.cat([weights[f"{name}_conv1d.weight"][:, 0] for name in "qkv"]),
            "fading.log_rate": weights["A_log"],
            "fading.step_bias": weights["dt_bias"],
            "norm.weight": weights["o_norm.weight"],
            "out.weight": weights["o_proj.weight"],
        }
    )
    return mixer, stored


@each_way
def test_equals_transformers(way):
    mixer, stored = by_transformers()
    with use(way):
        y, (past, memory) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["memory"], rtol=1e-12, atol=1e-12)
    # they keep as many inputs as the convolution has taps, features first
    assert_close(past, stored["past"][:, :, 1:].mT, rtol=1e-12, atol=1e-12)


@each_way
def test_equals_flash_linear_attention(way):
    mixer, stored = by_flash_linear_attention()
    with use(way):
        y, (_, memory) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["state.0"], rtol=1e-12, atol=1e-12)


def test_many_tokens_continue_from_a_carried_state():
    mixer, stored = by_transformers()
    _, state = mixer(stored["x"][:, :CUT])
    y, (_, memory) = mixer(stored["x"][:, CUT:], state)
    assert_close(y, stored["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["memory"], rtol=1e-12, atol=1e-12)


def test_packed_sequences_equal_transformers_on_each():
    mixer, stored = by_transformers()
    y, _ = mixer(stored["x"].flatten(0, 1)[None], None, Clock.packed([0, 70, 140]))
    assert_close(y[0], stored["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)


def test_it_starts_as_the_paper_says():
    mixer = GatedDeltaNet(256, heads=256)
    rate, step = mixer.fading.log_rate.exp(), F.softplus(mixer.fading.step_bias)
    assert rate.min() >= 0.0099 and rate.max() <= 16.001 and 6.5 < rate.mean() < 9.5
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4; or give head_size"):
        GatedDeltaNet(10)
    with pytest.raises(ValueError, match=r"strength is 3.0: it must be above 0 and at most 2"):
        GatedDeltaNet(8, strength=3.0)
