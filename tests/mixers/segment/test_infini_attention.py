"""Infini-attention against infini-transformer-pytorch (tests/oracles/make_segment.py), and at its limits."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.segment.infini_attention import InfiniAttention, _recall
from recurra.mixers.window.attention import Attention
from recurra.parts.features import elu_plus_one


@pytest.mark.parametrize("form", ["infini", "infini_delta"])
def test_equals_the_package(form):
    weights, stored = numbers("segment", f"{form}.")
    mixer = InfiniAttention(8, segment=5, heads=2, delta=form == "infini_delta").double()
    query, key, value = weights["to_qkv.weight"].chunk(3)
    mixer.load_state_dict(
        # their gate opens on the segment, ours on the memory
        {"query.weight": query, "key.weight": key, "value.weight": value, "out.weight": weights["to_out.weight"]}
        | {"gate": -weights["fastweight_mem.head_gates"]}
    )
    y, ((matrix, total), _) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(matrix, stored["matrix"], rtol=1e-12, atol=1e-12)
    assert_close(total, stored["total"], rtol=1e-12, atol=1e-12)


def test_a_closed_gate_leaves_attention_within_segments():
    mixer = InfiniAttention(8, segment=5).double()
    with torch.no_grad():
        mixer.gate.fill_(-1000)
    full = Attention(8).double()
    full.load_state_dict({name: p for name, p in mixer.state_dict().items() if name != "gate"})
    x = torch.randn(2, 18, 8, dtype=torch.float64)
    apart = torch.cat([full(part)[0] for part in x.split(5, 1)], 1)
    assert_close(mixer(x)[0], apart, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("delta, read", [(False, 1.0), (True, 0.5)])
def test_what_is_written_three_times_is_read(delta, read):
    """The sum reads it once; the delta rule as published counts the key three times, and reads a half."""
    mixer = InfiniAttention(16, segment=1, heads=2, delta=delta).double()
    (memory, _), (key, value) = mixer.initial_state(1), torch.randn(2, 1, 1, 2, 8, dtype=torch.float64)
    key = elu_plus_one(key)
    for _ in range(3):
        memory = mixer._write(memory, key, value)
    assert_close(_recall(memory, key), read * value)


def test_autocast_leaves_the_memorys_sums_wide():
    mixer = InfiniAttention(8, segment=5, delta=True)
    (memory, _), (key, value) = mixer.initial_state(2), torch.rand(2, 2, 5, 4, 2)
    memory = mixer._write(memory, key, value)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = mixer._write(memory, key, value)
    assert_close(narrow, mixer._write(memory, key, value), rtol=0, atol=0)


def test_before_a_segment_is_full_nothing_is_remembered():
    mixer = InfiniAttention(8, segment=5)
    _, ((matrix, total), (_, past)) = mixer(torch.randn(2, 4, 8))
    assert (matrix == 0).all() and (total == 0).all() and past.tolist() == [4, 4]


@pytest.mark.parametrize("segment", [0, -3])
def test_a_segment_of_nothing_is_refused(segment):
    with pytest.raises(ValueError, match=f"segment is {segment}: it must be at least 1"):
        InfiniAttention(8, segment=segment)
