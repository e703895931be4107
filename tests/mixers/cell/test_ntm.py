"""The neural Turing machine against pytorch-ntm (tests/oracles/make_machines.py), and a step by hand.

Theirs adds next to nothing to lengths; so does ours here.
"""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.cell.ntm import NTM
from recurra.ops.machine import content

WEIGHTS, STORED = numbers("machines", "ntm.")


@pytest.mark.parametrize("cut", [0, 4])
def test_equals_pytorch_ntm(cut, monkeypatch):
    monkeypatch.setattr(content, "REST", 1e-30)
    mixer = NTM(8, slots=5, size=4).double()
    mixer.load_state_dict(WEIGHTS)
    state = tuple(STORED[f"start.{i}"] for i in range(6))
    first, state = mixer(STORED["x"][:, :cut], state)
    second, state = mixer(STORED["x"][:, cut:], state)
    assert_close(torch.cat([first, second], 1), STORED["y"], rtol=1e-12, atol=1e-12)
    for i, part in enumerate(state):
        assert_close(part, STORED[f"end.{i}"], rtol=1e-12, atol=1e-12)


def silent(mixer):
    """Nothing but the biases of what the controller says."""
    with torch.no_grad():
        for p in mixer.parameters():
            p.zero_()
    return mixer.controller.interface.bias


def test_writes_a_slot_and_moves_on():
    """By hand: a head that ignores content, writes (2, -1) where it is and then moves on one slot each step."""
    mixer = NTM(8, slots=4, size=2).double()
    bias, far = silent(mixer), 800.0
    with torch.no_grad():
        for head in bias[:16].view(2, 8):
            head[3], head[6] = -far, far  # keep looking where it was; move on
        bias[16:18], bias[18:20] = far, torch.tensor([2.0, -1.0])
        _, (_, _, read, memory, looked, _) = mixer(torch.zeros(1, 2, 8, dtype=torch.float64))
    assert_close(read, torch.tensor([[2.0, -1.0]]).double())
    assert_close(memory.view(4, 2), torch.tensor([[0, 0], [2, -1], [2, -1], [0, 0]]).double())
    assert_close(looked.view(2, 4), torch.tensor([[0, 0, 1, 0], [0, 0, 1, 0]]).double())


def test_all_heads_erase_before_any_adds():
    """By hand: two heads on one slot, each erasing all and adding its own; both additions stay."""
    mixer = NTM(8, slots=3, size=1, write_heads=2).double()
    bias, far = silent(mixer), 800.0
    with torch.no_grad():
        for head in bias[:21].view(3, 7):
            head[2], head[4] = -far, far
        bias[21:23], bias[23:25] = far, torch.tensor([2.0, 3.0])
        _, (_, _, read, memory, *_) = mixer(torch.zeros(1, 2, 8, dtype=torch.float64))
    assert_close(memory, torch.tensor([[5.0, 0.0, 0.0]]).double())
    assert_close(read, torch.tensor([[5.0]]).double())


@pytest.mark.parametrize("wrong", [{"slots": 2}, {"size": 0}, {"read_heads": 0}, {"write_heads": 0}])
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .: it must be at least"):
        NTM(8, **wrong)
