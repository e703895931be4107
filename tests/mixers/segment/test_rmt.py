"""RMT against recurrent-memory-transformer-pytorch (tests/oracles/make_segment.py), and at its limits."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.clock import Clock
from recurra.mixers.segment.rmt import RMT
from recurra.mixers.window.attention import Attention
from recurra.ops import native as door
from recurra.ops.scan import use
from recurra.ops.walk import native


def by_neighbours(weight, heads):
    """Their rotation turns features i and i + K/2 together, ours 2i and 2i + 1."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


@pytest.mark.parametrize("cut", [0, 5, 13])
def test_equals_the_package(cut):
    weights, stored = numbers("segment", "rmt.")
    attention = {name: weights[f"layers.0.0.branch.to_{name}.weight"] for name in ("q", "kv", "out")}
    key, value = attention["kv"].chunk(2)
    mixer = RMT(8, segment=5, tokens=3, heads=2, base=32_768.0).double()
    mixer.load_state_dict(
        {
            "query.weight": by_neighbours(attention["q"], 2),
            "key.weight": by_neighbours(key, 2),
            "value.weight": value,
            "out.weight": attention["out"],
            "memory": stored["start"],
            "enter.weight": weights["layers.0.0.branch.norm.weight"],
            "norm.weight": weights["layers.0.1.branch.0.weight"],
            "leave.weight": weights["norm.weight"],
            "feed_forward.up.weight": weights["layers.0.1.branch.1.weight"],
            "feed_forward.down.weight": weights["layers.0.1.branch.4.weight"],
        }
    )
    first, state = mixer(stored["x"][:, :cut])
    second, (memory, _) = mixer(stored["x"][:, cut:], state)
    assert_close(torch.cat([first, second], 1), stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, stored["memory"], rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(door.available() is not None, reason=str(door.available()))
def test_whole_segments_walked_at_once_are_the_loop(monkeypatch):
    mixer, reset = RMT(16, tokens=3, heads=2).double(), torch.zeros(3, 70, dtype=torch.bool)
    reset[1, 21] = reset[2, 64] = True
    x, walked = torch.randn(3, 70, 16, dtype=torch.float64, requires_grad=True), []
    scan = native.scan
    monkeypatch.setattr(native, "scan", lambda record, state: walked.append(record.way.makes) or scan(record, state))

    def run(clock):
        y, (memory, (kept, past)) = mixer(x, clock=clock)
        total = (y * y.detach().cos()).sum() + memory.square().sum() + kept.square().sum()
        grads = torch.autograd.grad(total, [x, *mixer.parameters()])
        return [y.detach(), memory.detach(), kept.detach(), past, *grads]

    for given in (None, Clock(reset=reset)):
        walked.clear()
        found = run(given)
        assert walked == [True]
        with use("loop"):
            assert_close(found, run(given), rtol=1e-9, atol=1e-11)


def test_without_tokens_segments_are_apart():
    mixer, full = RMT(8, segment=5, tokens=0).double(), Attention(8).double()
    full.load_state_dict({name: mixer.state_dict()[name] for name in full.state_dict()})
    x = torch.randn(2, 18, 8, dtype=torch.float64)
    apart = torch.cat([full(part)[0] for part in x.split(5, 1)], 1)
    assert_close(mixer(x)[0], apart, rtol=1e-12, atol=1e-12)


def test_a_fact_reaches_eight_segments_on_through_memory_alone():
    mixer = RMT(8, segment=4, tokens=2).double()
    x = torch.randn(1, 36, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][0, -1].sum(), x)
    assert (grad[0, :4].abs().sum(1) > 0).all()
