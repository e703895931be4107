"""HGRN2 against flash-linear-attention (tests/oracles/make_outer_fla.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.hgrn2 import HGRN2

WEIGHTS, STORED = numbers("outer_fla", "hgrn2.")


@pytest.fixture
def mixer():
    mixer = HGRN2(8, heads=2, lower_bound=0.3).double()
    # theirs scales the query by 1 / sqrt(K), which only the norm's epsilon sees
    mixer.norm.epsilon *= 4
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qfi"]),
            "norm.weight": WEIGHTS["g_norm.weight"],
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


def test_no_channel_forgets_more_than_the_bound_leaves():
    records = []
    mixer = HGRN2(16, lower_bound=0.9)
    mixer.scan.register_forward_pre_hook(lambda _, inputs: records.append(inputs[0]))
    mixer(100 * torch.randn(1, 20, 16))
    decay = records[0].log_decay.exp()
    assert decay.min() >= 0.9 and decay.max() <= 1
    assert_close(records[0].key, 1 - decay, rtol=1e-4, atol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        HGRN2(10)
    with pytest.raises(ValueError, match=r"lower_bound is 1\.0: it must be at least 0 and below 1"):
        HGRN2(8, lower_bound=1.0)
