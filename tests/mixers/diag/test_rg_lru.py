"""RG-LRU and Hawk's block against RecurrentGemma (tests/oracles/make_gates.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.diag.rg_lru import RGLRU, root

WEIGHTS, STORED = numbers("gates", "rg_lru.")
CUT = 13


@pytest.fixture
def mixer():
    mixer = RGLRU(8, units=12, blocks=3).double()
    linears = {"inputs": "linear_x", "gate": "linear_y", "out": "linear_out"}
    ours = {
        f"{our}.{kind}": WEIGHTS[f"{their}.{kind}"] for our, their in linears.items() for kind in ("weight", "bias")
    }
    ours |= {"conv.weight": WEIGHTS["conv_1d.weight"][:, 0], "conv.bias": WEIGHTS["conv_1d.bias"]}
    for our, their in {"write": "input_gate", "slow": "recurrent_gate"}.items():
        ours[f"{our}.weight"] = WEIGHTS[f"rg_lru.{their}_weight"].transpose(1, 2)
        ours[f"{our}.bias"] = WEIGHTS[f"rg_lru.{their}_bias"].flatten()
    mixer.load_state_dict(ours | {"rate": WEIGHTS["rg_lru.recurrent_param"]})
    return mixer


@each_way
def test_equals_recurrent_gemma(mixer, way):
    with use(way):
        y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)


def test_a_sequence_begins_whole_wherever_it_begins(mixer):
    """Theirs resets its recurrence alone: its convolution looks past the reset, so ours is given what theirs saw."""
    reset = torch.zeros(2, 30, dtype=torch.bool)
    reset[:, CUT] = True
    reads = []
    mixer.scan.register_forward_hook(lambda *seen: reads.append(seen[-1][0]))
    mixer.conv.register_forward_hook(lambda _, given, out: (STORED["inside"], out[1]))
    mixer(STORED["x"], None, Clock(reset))
    assert_close(reads[0], STORED["two"], rtol=1e-12, atol=1e-12)


def test_the_root_is_a_root_and_no_steeper_than_a_thousand():
    x = torch.tensor([0.0, 1e-12, 2e-7, 1e-6, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    y = root(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert_close(y, x.sqrt())
    assert_close(slope, (0.5 / x.detach().sqrt()).clamp(max=1000))


def test_it_starts_as_the_authors_code_does():
    kept = torch.exp(-torch.nn.functional.softplus(RGLRU(4096).rate))
    assert 0.9 <= kept.min() < 0.901 and 0.998 < kept.max() <= 0.9991
    assert_close(kept.square().mean().item(), (0.9**2 + 0.999**2) / 2, atol=0.003, rtol=0)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="units is 10: it must be a multiple of blocks, which is 4"):
        RGLRU(8, units=10)
