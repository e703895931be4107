"""Mamba-2 against transformers (tests/oracles/make_mamba2.py), whole, in pieces and packed."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.outer.mamba2 import Mamba2

STORED = {groups: numbers("mamba2", f"{groups}.") for groups in (1, 2)}
CUT = 8
each_grouping = pytest.mark.parametrize("groups", [1, 2])


def build(groups):
    mixer, (weights, stored) = Mamba2(8, heads=4, state_size=3, groups=groups).double(), STORED[groups]
    mixer.load_state_dict(
        {
            "project.weight": weights["in_proj.weight"],
            "conv.weight": weights["conv1d.weight"][:, 0],
            "conv.bias": weights["conv1d.bias"],
            "log_rate": weights["A_log"],
            "step_bias": weights["dt_bias"],
            "skip": weights["D"],
            "norm.weight": weights["norm.weight"],
            "out.weight": weights["out_proj.weight"],
        }
    )
    return mixer, stored


def check_state(state, stored):
    past, memory = state
    # they keep values first in the memory, and as many inputs as the convolution has taps, features first
    assert_close(memory, stored["memory"].mT, rtol=1e-12, atol=1e-12)
    assert_close(past, stored["past"][:, :, 1:].mT, rtol=1e-12, atol=1e-12)


@each_way
@each_grouping
def test_equals_transformers(groups, way):
    mixer, stored = build(groups)
    with use(way):
        y, state = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    check_state(state, stored)


@each_grouping
def test_many_tokens_continue_from_a_carried_state(groups):
    mixer, stored = build(groups)
    _, state = mixer(stored["x"][:, :CUT])
    y, state = mixer(stored["x"][:, CUT:], state)
    assert_close(y, stored["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    check_state(state, stored)


def test_packed_sequences_equal_transformers_on_each():
    mixer, stored = build(1)
    y, _ = mixer(stored["x"].flatten(0, 1)[None], None, Clock.packed([0, 21, 42]))
    assert_close(y[0], stored["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)


def test_decays_are_wide_where_the_layer_is_not():
    mixer = Mamba2(16).bfloat16()
    records = []
    mixer.scan.register_forward_pre_hook(lambda _, inputs: records.append(inputs[0]))
    y, _ = mixer(torch.randn(1, 9, 16, dtype=torch.bfloat16))
    assert records[0].log_decay.dtype == torch.float32 and y.dtype == torch.bfloat16


def test_it_starts_as_the_paper_says():
    mixer = Mamba2(512, heads=256)
    rate, step = mixer.log_rate.exp(), F.softplus(mixer.step_bias)
    assert rate.min() >= 0.999 and rate.max() <= 16.001 and 7 < rate.mean() < 10
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
    assert_close(step.log().mean().exp().item(), 1e-2, rtol=0.25, atol=0)
    assert (mixer.skip == 1).all() and mixer.initial_state(1)[1].shape == (1, 256, 64, 4)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"expand \* width is 20: it must be a multiple of heads, which is 8"):
        Mamba2(10)
    with pytest.raises(ValueError, match="heads is 8: it must be a multiple of groups, which is 3"):
        Mamba2(16, groups=3)
