"""What every way to learn promises, so that one loop trains by any of them.

A rule turns a batch into gradients and says when they are whole; the loop clips them and moves the weights. What a
rule must remember from batch to batch (a state, traces, averages) it hands back as nested tuples of tensors, which
checkpoints hold: a stopped run goes on to the same numbers by any rule.
"""

import abc
from collections.abc import Callable
from typing import Any

from recurra.shapes import State, Tensor
from recurra.tasks import Batch, Task
from recurra.train.config import Config

Update = Callable[[Tensor], None]


class LearningRule(abc.ABC):
    """A way to learn. A subclass writes `learn`; its keywords are a run's `rule_arguments`.

    Args:
        model: what learns: takes `(inputs, state, clock)`.
        task: what it learns from: says the loss.
        config: the run's settings.

    Raises:
        RunError: the rule cannot teach this model; the message says why.
    """

    memory_bytes: int = 0  # kept for credit at the most, weights and inputs left out; 0 until the first `learn`

    def __init__(self, model: Any, task: Task, config: Config) -> None:
        self.model, self.task, self.config = model, task, config

    @abc.abstractmethod
    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        """Learn from one batch; every gradient is empty before.

        Args:
            batch: on the model's device.
            kept: what the call before returned; None at the start.
            update: to be called with the loss when the parameters' gradients are whole: checks them, moves the
                weights, and empties the gradients. Most rules call it once a batch.

        Returns:
            What the next call needs, as nested tuples of tensors, without history; None: nothing.
        """
