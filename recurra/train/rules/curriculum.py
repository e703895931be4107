"""Curricula: begin with the shortest memory, and ask for a longer one each time that the present one is held."""

from typing import Any

import torch

from recurra.shapes import State
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.backpropagation import first_count
from recurra.train.rules.base import LearningRule, Update

FORGET = 0.9  # how slowly the accuracies follow those of single batches


class Curriculum(LearningRule):
    r"""Learn heads of growing difficulty: one more whenever those being learned, and the newest of them, are right.

    .. math::  L = \sum_{n \in A} \ell_n \qquad A = \{N - w + 1, \dots, N\}

    Here N grows by one when the running accuracies of the heads in A have a mean above `bar` and so has the newest.
    With w = 1 that is the single-head curriculum, which may forget the shorter memories; with all heads up to N the
    multi-head curriculum, which may not. Khajehabdollahi et al. 2024, https://openreview.net/forum?id=xwKt6bUkXj.
    Unlike the paper each head keeps a read-out of its own in both, so that what is forgotten can be measured.

    Keeps the level and the running accuracies, and the state where it is carried.

    Args:
        keep: how many of the newest heads are learned (w); 0: all up to the newest.
        bar: of accuracy.

    Raises:
        RunError: the task has no heads, the run is endless, or an argument is out of range.
    """

    def __init__(self, model: Any, task: Task, config: Config, *, keep: int = 0, bar: float = 0.98) -> None:
        super().__init__(model, task, config)
        if not hasattr(task, "heads"):
            raise RunError("a curriculum needs a task with heads, such as window_parity or delayed_match")
        if config.endless:
            raise RunError("a curriculum asks for its own rows again and again: it cannot be endless")
        if keep < 0 or not 0 < bar < 1:
            raise RunError(f"the curriculum has keep {keep} and bar {bar}: keep is at least 0, bar between 0 and 1")
        self.keep, self.bar, self.task = keep, bar, task

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        task: Any = self.task
        state, level, accuracies = (None, torch.ones(1, dtype=torch.int64), None) if kept is None else kept
        with first_count(self):
            outputs, after = forward(self.model, batch, state or None, self.config)
            losses, right = task.heads(outputs, batch)
            newest = int(level)
            active = slice(max(0, newest - self.keep) if self.keep else 0, newest)
            loss = losses[active].sum()
        loss.backward()
        update(loss)
        accuracies = torch.zeros_like(right) if accuracies is None else accuracies
        accuracies = FORGET * accuracies + (1 - FORGET) * right
        passed = min(accuracies[active].mean(), accuracies[newest - 1]) > self.bar
        level = level + int(passed and newest < len(right))
        return carried(after) if self.config.tbptt else (), level, accuracies
