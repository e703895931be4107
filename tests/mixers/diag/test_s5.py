"""S5 against its package (tests/oracles/make_state_spaces.py), with steps of one length and of many, and its start."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.diag.s5 import S5
from recurra.parts.hippo import legs

SHARED = numbers("state_spaces")[1]


@pytest.fixture
def mixer():
    weights, _ = numbers("state_spaces", "s5.")
    # the package keeps every conjugate and we one of each pair, twice: our states are theirs, and the 2 is in the read
    mixer = S5(4, units=12).double()
    rate, write, read = (torch.view_as_complex(weights[x]) for x in ("Lambda", "B", "C"))
    mixer.load_state_dict(
        {
            "log_rate": (-rate.real).log(),
            "frequency": rate.imag,
            "log_step": weights["log_step"],
            "write.weight": torch.cat([write.real, write.imag], 0),
            "read.weight": torch.cat([read.real, -read.imag], 1),
            "skip": weights["D"],
            "gate.weight": mixer.gate.weight,
        }
    )
    return mixer


@each_way
@pytest.mark.parametrize(("name", "clock"), [("y", None), ("irregular", Clock(dt=SHARED["dt"]))])
def test_equals_its_package(mixer, name, clock, way):
    _, values = numbers("state_spaces", "s5.")
    # the package ends before the gate
    y = F.gelu(values[name])
    with use(way):
        assert_close(mixer(SHARED["x"], None, clock)[0], y * torch.sigmoid(mixer.gate(y)), rtol=1e-12, atol=1e-12)


def test_two_steps_are_one_of_twice_the_time(mixer):
    """Where the input does not change the hold is exact, however time is cut."""
    x = torch.randn(2, 1, 4, dtype=torch.float64).expand(-1, 6, -1)
    _, halves = mixer(x, None, Clock(dt=torch.full((2, 6), 0.5, dtype=torch.float64)))
    _, whole = mixer(x[:, :3])
    assert_close(halves, whole)


def test_it_starts_as_the_normal_part_of_hippo():
    torch.manual_seed(1)
    mixer = S5(3, units=16, blocks=2).double()
    low = (torch.arange(8.0, dtype=torch.float64) + 0.5).sqrt()
    values = torch.linalg.eigvals(legs(8) + torch.outer(low, low))
    want = values.imag.sort().values[4:].float().double().repeat(2)
    assert_close(mixer.frequency, want)
    assert_close(mixer.log_rate.exp(), torch.full((8,), 0.5, dtype=torch.float64), rtol=1e-6, atol=0)
    # B and C are those of a real system of 16 units: a real matrix seen through eigenvectors that are unit
    write = torch.complex(*mixer.write.weight.chunk(2, 0))
    assert_close(2 * write.abs().square().sum().item(), 16.0, rtol=0.5, atol=0)


def test_units_come_in_pairs_and_blocks():
    with pytest.raises(ValueError, match="twice blocks"):
        S5(8, units=6, blocks=2)
