"""Gated slot attention against flash-linear-attention (tests/oracles/make_outer_fla.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.gsa import GSA

WEIGHTS, STORED = numbers("outer_fla", "gsa.")


@pytest.fixture
def mixer():
    mixer = GSA(8, heads=2, slots=3).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkvf"]),
            "norm.weight": WEIGHTS["g_norm.weight"],
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, (keys, values) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    # they keep the slots' keys slots last
    assert_close(keys, STORED["state.0"].mT, rtol=1e-12, atol=1e-12)
    assert_close(values, STORED["state.1"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("forget", [-1e4, 1e4])
def test_a_gate_wide_open_or_shut_has_a_gradient(forget):
    mixer = GSA(8)
    with torch.no_grad():
        mixer.project.weight[24:] = forget * mixer.project.weight[24:].abs()
    x = torch.rand(1, 30, 8, requires_grad=True)
    y, state = mixer(x)
    y.sum().backward()
    assert all(torch.isfinite(part).all() for part in (y, *state, x.grad, mixer.project.weight.grad))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        GSA(10)
