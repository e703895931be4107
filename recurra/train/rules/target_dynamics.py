"""Target dynamics: a network that does what another does, and does it the way that a few of its units were seen to."""

from typing import Any

import torch

from recurra.shapes import State, Tensor
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.backpropagation import first_count
from recurra.train.rules.base import LearningRule, Update


class TargetDynamics(LearningRule):
    r"""Learn the outputs, and let the first units of the network follow the units of another that were recorded.

    .. math::  L = \ell(y, y^*) + \lambda\, \overline{(r_S - r^*_S)^2}

    Salatiello and Giese 2020, https://doi.org/10.1007/978-3-030-61609-0_70: outputs and the dynamics inside, from a
    small part of the units. Unlike the paper, whose own update is a form of recursive least squares and was not
    verified, this is the gradient form, by backpropagation through time (over windows with `tbptt`).
    What is compared with recordings are the reads of the first block's mixer, so use one whose reads are its rates,
    such as `ctrnn`. Units that are not recorded are free, and take up the part that the recorded ones leave.

    Args:
        strength: of the recordings beside the loss (lambda); 0: only the outputs are learned.

    Raises:
        RunError: the task has no recordings, the strength is negative, or the network has fewer units than recorded.
    """

    def __init__(self, model: Any, task: Task, config: Config, *, strength: float = 1.0) -> None:
        super().__init__(model, task, config)
        if not hasattr(task, "recordings"):
            raise RunError("target_dynamics compares units with recordings, and this task has none: use `recordings`")
        if not strength >= 0:
            raise RunError(f"the strength of target_dynamics is {strength}: it must be at least 0")
        self.strength, self.task = strength, task

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        with first_count(self):
            rates, outputs, state = rates_of(self.model, batch, kept, self.config)
            loss = self.task.loss(outputs, batch) + self.strength * self._distance(rates, batch)
        loss.backward()
        update(loss)
        return carried(state) if self.config.tbptt else None

    def _distance(self, rates: Tensor, batch: Batch) -> Tensor:
        """The mean square between the first units and the recordings."""
        task: Any = self.task
        recorded = task.recordings(batch)
        if recorded.shape[-1] > rates.shape[-1]:
            raise RunError(f"{recorded.shape[-1]} units are recorded, and the network has {rates.shape[-1]}")
        return (rates[..., : recorded.shape[-1]] - recorded).square().mean()


def rates_of(model: Any, batch: Batch, state: State | None, config: Config) -> tuple[Tensor, Tensor, State]:
    """The reads of the first block's mixer over a batch, `(B, T, D)`, the model's outputs, and the state."""
    seen: list[Tensor] = []
    hook = model.backbone.blocks[0].mixer.register_forward_hook(lambda _, __, result: seen.append(result[0]))
    try:
        outputs, after = forward(model, batch, state, config)
    finally:
        hook.remove()
    return torch.cat(seen, 1), outputs, after
