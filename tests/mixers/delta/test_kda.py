"""KDA against flash-linear-attention (tests/oracles/make_delta.py), and against its neighbour without channels."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.delta.gated_deltanet import GatedDeltaNet
from recurra.mixers.delta.kda import KDA

WEIGHTS, STORED = numbers("delta", "kda.")
CUT = 13


@pytest.fixture
def mixer():
    mixer = KDA(8, heads=2, head_size=3, expand=2).double()
    into = [WEIGHTS[f"{name}.weight"] for name in ("q_proj", "k_proj", "v_proj", "f_proj.0", "g_proj.0", "b_proj")]
    mixer.load_state_dict(
        {
            "project.weight": torch.cat(into),
            "conv.weight": torch.cat([WEIGHTS[f"{name}_conv1d.weight"][:, 0] for name in "qkv"]),
            "forget.weight": WEIGHTS["f_proj.1.weight"],
            "gate.weight": WEIGHTS["g_proj.1.weight"],
            "gate.bias": WEIGHTS["g_proj.1.bias"],
            "fading.log_rate": WEIGHTS["A_log"],
            "fading.step_bias": WEIGHTS["dt_bias"],
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
    assert_close(past, F.linear(STORED["x"], mixer.project.weight[: sum(mixer.mixed)])[:, -3:])


def test_many_tokens_continue_from_a_carried_state(mixer):
    _, state = mixer(STORED["x"][:, :CUT])
    y, (_, memory) = mixer(STORED["x"][:, CUT:], state)
    assert_close(y, STORED["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(memory, STORED["state.0"], rtol=1e-12, atol=1e-12)


def test_with_one_decay_for_all_channels_it_remembers_as_gated_deltanet_does():
    """A decay that does not depend on x, the same in each channel: the same memory, from the same projections."""
    ours, theirs = KDA(8, heads=2).double(), GatedDeltaNet(8, heads=2, expand=1).double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    with torch.no_grad():
        ours.forget.weight.zero_()
        theirs.project.weight[-2:].zero_()
        theirs.fading.log_rate.copy_(ours.fading.log_rate)
        theirs.fading.step_bias.fill_(-1.0)
        ours.fading.step_bias.fill_(-1.0)
        theirs.project.weight[:24], theirs.conv.weight[:] = ours.project.weight[:24], ours.conv.weight
        theirs.project.weight[32:34] = ours.project.weight[-2:]
    assert_close(ours(x)[1], theirs(x)[1], rtol=1e-12, atol=1e-12)


def test_it_starts_as_the_paper_says():
    mixer = KDA(256, heads=64)
    rate, step = mixer.fading.log_rate.exp(), F.softplus(mixer.fading.step_bias)
    assert len(step) == 256 and rate.min() >= 0.999 and rate.max() <= 16.001 and 6.5 < rate.mean() < 10.5
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4; or give head_size"):
        KDA(10)
    with pytest.raises(ValueError, match=r"strength is 3.0: it must be above 0 and at most 2"):
        KDA(8, strength=3.0)
