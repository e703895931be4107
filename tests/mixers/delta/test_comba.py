"""Comba against flash-linear-attention (tests/oracles/make_delta.py), and against a loop over its equations."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.delta.comba import Comba

WEIGHTS, STORED = numbers("delta", "comba.")
CUT = 13


@pytest.fixture
def mixer():
    mixer = Comba(8, heads=2, head_size=3).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkvgba"]),
            "conv.weight": torch.cat([WEIGHTS[f"{name}_conv1d.weight"][:, 0] for name in "qkv"]),
            "erasure": WEIGHTS["decay"],
            # theirs is two factors
            "correction": WEIGHTS["D"] * WEIGHTS["decay"].sigmoid(),
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


def test_the_erasure_reads_the_memory_before_it_fades(mixer):
    """Equation 5 of the paper, S (alpha - beta~ k k') + beta v k', on a key that comes twice, by hand."""
    records = []
    mixer.scan.register_forward_pre_hook(lambda _, arguments: records.append(arguments[0]))
    _, (_, memory) = mixer(STORED["x"][:1, :2])
    record = records[0]
    one, two = ((record.key[0, t], record.value[0, t], record.answer[0, t], record.probe[0, t]) for t in (0, 1))
    alpha = record.log_decay[0, 1].exp()[:, None, None]
    first = one[0][..., None] * one[1][:, None]
    recalled = (two[3][..., None] * first).sum(1)
    expected = alpha * first + two[2][..., None] * recalled[:, None] + two[0][..., None] * two[1][:, None]
    assert_close(memory[0], expected, rtol=1e-12, atol=1e-12)
    erased = (
        -mixer.erasure.sigmoid()[:, None] * STORED["x"][0, 1].matmul(mixer.project.weight[-4:-2].mT).sigmoid()[:, None]
    )
    assert_close(two[2], erased * two[3], rtol=1e-12, atol=1e-12)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4; or give head_size"):
        Comba(10)
