"""A clock with several ticks a step."""

import torch

from recurra import Clock
from recurra.ops.steps import finer


def test_a_sequence_begins_at_a_steps_first_tick_and_all_ticks_of_a_step_happen_or_none():
    reset, valid = torch.tensor([[0, 1, 0], [1, 0, 1]]).bool(), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    fine = finer(Clock(reset, valid), 2)
    assert fine is not None and fine.reset is not None and fine.valid is not None
    assert fine.reset.int().tolist() == [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0]]
    assert fine.valid.int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]


def test_what_was_not_said_is_not_said_and_one_tick_is_the_clock_itself():
    clock = Clock(torch.ones(1, 2, dtype=torch.bool))
    assert finer(None, 3) is None and finer(clock, 1) is clock
    fine = finer(clock, 3)
    assert fine is not None and fine.valid is None
