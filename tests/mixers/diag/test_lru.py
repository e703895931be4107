"""The LRU against its package (tests/oracles/make_lru.py), and its start."""

import math
import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra.mixers.diag.lru import LRU

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "lru.safetensors")


def test_equals_its_package():
    mixer = LRU(8, units=5).double()
    write, read = NUMBERS["weight.B"], NUMBERS["weight.C"]
    mixer.load_state_dict(
        {
            "log_rate": NUMBERS["weight.nu_log"],
            "log_phase": NUMBERS["weight.theta_log"],
            "log_scale": NUMBERS["weight.gamma_log"],
            "write.weight": torch.cat(write.unbind(-1), 0),
            "read.weight": torch.cat(read.unbind(-1), 1),
            "skip": NUMBERS["weight.D"].diagonal(),
        }
    )
    assert_close(mixer(NUMBERS["x"])[0], NUMBERS["y"], rtol=1e-12, atol=1e-12)


def test_it_starts_even_over_its_ring():
    mixer = LRU(8, units=20000, smallest=0.6, largest=0.9, phase=1.0)
    radius, phase = (-mixer.log_rate.exp()).exp(), mixer.log_phase.exp()
    assert radius.min() >= 0.6 and radius.max() <= 0.9 and phase.min() >= 0 and phase.max() <= 1
    # even over the area: the squares of the radii are uniform
    assert_close(radius.square().mean().item(), (0.6**2 + 0.9**2) / 2, rtol=0, atol=0.005)
    assert_close(phase.mean().item(), 0.5, rtol=0, atol=0.01)
    assert_close(mixer.log_scale.exp(), (1 - radius.square()).sqrt(), rtol=1e-4, atol=0)
    bound = 1 / math.sqrt(16)
    assert_close(mixer.write.weight.std().item(), bound, rtol=0.02, atol=0)


def test_units_stay_as_large_as_their_inputs_even_near_the_edge():
    mixer = LRU(8, units=64, smallest=0.99, largest=0.9999)
    _, h = mixer(torch.randn(4, 3000, 8))
    assert 0.3 < h.abs().square().mean() < 3


@pytest.mark.parametrize("ring", [(0.9, 0.9), (-0.1, 0.5), (0.5, 1.1)])
def test_an_impossible_ring_is_refused(ring):
    with pytest.raises(ValueError, match="the radii are"):
        LRU(8, smallest=ring[0], largest=ring[1])
