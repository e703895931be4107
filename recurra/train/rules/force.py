"""FORCE on batches: a read-out that is the least-squares solution of all that was seen, and nothing else learns."""

from typing import Any

import torch
from torch.nn import functional as F

from recurra.shapes import State, Tensor
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.base import LearningRule, Update
from recurra.train.rules.least_squares import RecursiveLeastSquares


class Force(LearningRule):
    r"""Recursive least squares on a forecaster's read-out; the recurrent network stays as it was drawn.

    .. math::
        e_t = y_t - W r_t \qquad k = P r_t \qquad c = 1 / (1 + r_t^\top k) \qquad
        W \leftarrow W + c\, e_t k^\top \qquad P \leftarrow P - c\, k k^\top

    Sussillo and Abbott 2009, https://doi.org/10.1016/j.neuron.2009.07.018. Rows of a batch that are at the same step
    are seen together, and of targets wider than the read-out the first are learned. Unlike the paper the network hears
    the data and not what it says itself; with its own output fed back it is `rate_network.force`. The loss is that of
    every step before the update there. The learning rate, the decay and the clipping of gradients have nothing to act
    on: there are no gradients.

    Keeps the inverse P and the weights in float64, and the state where it is carried.

    Args:
        penalty: of the read-out's squares; small learns fast.

    Raises:
        RunError: the model is no forecaster of one quantile, or the penalty is not greater than 0.
    """

    def __init__(self, model: Any, task: Task, config: Config, *, penalty: float = 1.0) -> None:
        super().__init__(model, task, config)
        if model.name != "forecaster" or len(model.config["quantiles"]) != 1:
            raise RunError("force finds a mean by least squares: it teaches a forecaster of one quantile, nothing else")
        if not penalty > 0:
            raise RunError(f"the penalty of force is {penalty}: it must be greater than 0")
        self.penalty = penalty

    @torch.no_grad()
    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        out, seen = self.model.out, []
        outputs, features = out.weight.shape
        learner = RecursiveLeastSquares(features + 1, outputs, penalty=self.penalty, start=_read(out))
        state: State = None
        if kept is not None:
            state, learner.inverse, learner.weight = kept
        hook = out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            _, after = forward(self.model, batch, state or None, self.config)
        finally:
            hook.remove()
        said = _pass(learner, F.pad(seen[0], (0, 1), value=1.0), batch, batch.targets[..., :outputs])
        update(self.task.loss(said.to(seen[0])[..., None], batch))
        out.weight.copy_(learner.weight[:, :-1])
        out.bias.copy_(learner.weight[:, -1])
        self.memory_bytes = learner.inverse.nbytes + learner.weight.nbytes
        return carried(after) if self.config.tbptt else (), learner.inverse, learner.weight


def _pass(learner: RecursiveLeastSquares, features: Tensor, batch: Batch, targets: Tensor) -> Tensor:
    """What is read at every step before it is learned from, `(B, T, M)`."""
    counts = torch.ones_like(targets[..., 0], dtype=torch.bool)
    for flags in (batch.scored, batch.valid):
        counts = counts if flags is None else counts & flags
    said = []
    for row, target, here in zip(features.unbind(1), targets.unbind(1), counts.unbind(1), strict=True):
        said.append(row.double() @ learner.weight.T)
        if here.any():
            learner.update(row[here], target[here])
    return torch.stack(said, 1)


def _read(out: torch.nn.Linear) -> Tensor:
    """A read-out as one matrix, its bias the weight of a feature that is always 1."""
    return torch.cat([out.weight, out.bias[:, None]], 1)
