"""Forward propagation through time: learn at every part of a sequence, held near the mean of where the weights were.

To learn at every step from what that step alone says would make weights run after each step in turn. A term that pulls
them to their own running mean, and a multiplier that remembers the slope there, let them settle where all parts agree.
"""

from typing import Any

import torch

from recurra.shapes import State, Tensor
from recurra.state import leaves
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.backpropagation import first_count, refuse_pieces
from recurra.train.rules.base import LearningRule, Update

STRENGTH = 2.0  # of the square beside the multiplier, as the authors' code has it


class FPTT(LearningRule):
    r"""Learning at every part of a sequence, with a regulariser that moves along with the weights.

    .. math::
        W_{t+1} &= W_t - \eta\, \nabla \left[ \ell_t(W) + \alpha \|W - \bar W_t\|^2 - \alpha \langle W, \mu_t \rangle
        \right] \\
        \mu_{t+1} &= \mu_t - (W_{t+1} - \bar W_t) \qquad
        \bar W_{t+1} = (1 - \beta)\, \bar W_t + \beta\, W_{t+1} - \beta\, \mu_{t+1}

    Kag and Saligrama 2021, https://proceedings.mlr.press/v139/kag21a.html. :math:`\alpha \mu` is their multiplier:
    where a part is minimised it is the slope of that part's loss, and the square with it is their
    :math:`\|W - \bar W - \nabla \ell / (2 \alpha)\|^2`. At the end of a sequence W becomes its mean and the multiplier
    zero, except where the state is carried on (`tbptt`), where no sequence ends; there alpha 0 is plain descent on
    every part. The loss that is told is that of the batch's last part.

    Unlike the paper the step is the run's optimiser's, and a loss that comes at the end of a sequence only is not
    spread over its parts: parts in which no step counts are pulled to the mean and learn nothing else.

    Keeps the state, W's mean and the multiplier: three times the weights, whatever the length.

    Args:
        parts: of a batch, each with an update of its own; the state crosses without its history.
        alpha: how much the regulariser weighs.
        beta: how fast the mean follows.

    Raises:
        RunError: an argument is out of range, or the model cannot go on from a state.
    """

    def __init__(
        self, model: Any, task: Task, config: Config, *, parts: int = 8, alpha: float = 0.1, beta: float = 0.5
    ) -> None:
        super().__init__(model, task, config)
        if not 1 <= parts <= config.length:
            raise RunError(f"the parts of fptt are {parts}: they must be between 1 and the length, {config.length}")
        if not alpha >= 0 or not 0 < beta <= 1:
            raise RunError(f"fptt has alpha {alpha} and beta {beta}: alpha must be at least 0, beta in (0, 1]")
        refuse_pieces("fptt", model)
        self.parts, self.alpha, self.beta = parts, alpha, beta

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        if kept is None:
            state, means, slopes = None, _copies(weights), tuple(map(torch.zeros_like, weights))
        else:
            state, means, slopes = kept
        for part in _parts(batch, self.parts):
            held = sum(x.nbytes for x in (*means, *slopes))
            with first_count(self, held):
                outputs, state = forward(self.model, part, state, self.config)
                loss = self.task.loss(outputs, part)
            loss.backward()
            self._regularise(weights, means, slopes)
            update(loss)
            means, slopes = self._follow(weights, means, slopes)
            state = carried(state)
        if self.config.tbptt:
            return state, means, slopes
        _set(weights, means)
        return None

    @torch.no_grad()
    def _regularise(self, weights: list[Tensor], means: State, slopes: State) -> None:
        """Add the regulariser's gradient."""
        for weight, mean, slope in zip(weights, means, slopes, strict=True):
            pull = self.alpha * (STRENGTH * (weight - mean) - slope)
            weight.grad = pull if weight.grad is None else weight.grad + pull

    @torch.no_grad()
    def _follow(self, weights: list[Tensor], means: State, slopes: State) -> tuple[State, State]:
        """The mean and the multiplier after an update."""
        slopes = tuple(s - (w - m) for w, m, s in zip(weights, means, slopes, strict=True))
        beta = self.beta
        means = tuple((1 - beta) * m + beta * (w - s) for w, m, s in zip(weights, means, slopes, strict=True))
        return means, slopes


def _parts(batch: Batch, parts: int) -> list[Batch]:
    """The batch in so many pieces of time, as even as can be."""
    steps = batch.inputs.shape[1]
    if batch.targets.shape[:2] != batch.inputs.shape[:2]:
        raise RunError("fptt learns at every part of a sequence, and this task has no target at every step")
    pieces = zip(*(_pieces(x, min(parts, steps)) for x in batch), strict=True)
    return [Batch(*piece) for piece in pieces]


def _pieces(x: Tensor | None, parts: int) -> list[Any]:
    return [None] * parts if x is None else list(x.tensor_split(parts, 1))


@torch.no_grad()
def _copies(weights: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(w.detach().clone() for w in weights)


@torch.no_grad()
def _set(weights: list[Tensor], means: State) -> None:
    for weight, mean in zip(weights, leaves(means), strict=True):
        weight.copy_(mean)
