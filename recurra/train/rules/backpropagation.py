"""Credit carried backwards through time: all of it, or over windows with the state handed across."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from recurra.clock import Clock
from recurra.shapes import State, Tensor
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.base import LearningRule, Update
from recurra.train.rules.memory import Kept, counting

# models that must have a sequence whole, and why
WHOLE = {
    "classifier": "it is read once for all steps",
    "ctc": "it reads from a sequence's end too",
    "latent_ode": "what is seen is read from its end",
}


class BPTT(LearningRule):
    r"""The whole gradient: every step's error walks back through all steps before it.

    .. math::  \frac{dL}{d\theta} = \sum_t \delta_t \frac{\partial h_t}{\partial \theta}
        \qquad \delta_t = \frac{\partial \ell_t}{\partial h_t} + \delta_{t+1} \frac{\partial h_{t+1}}{\partial h_t}

    Werbos 1990, https://doi.org/10.1109/5.58337. Keeps what all T steps computed. With `tbptt` in the run's settings
    the state, without its history, is handed from batch to batch.
    """

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        with first_count(self):
            outputs, state = forward(self.model, batch, kept, self.config)
            loss = self.task.loss(outputs, batch)
        loss.backward()
        update(loss)
        return carried(state) if self.config.tbptt else None


class TBPTT(LearningRule):
    r"""Backpropagation that looks back no further than a window's beginning; the state itself goes on.

    .. math::  \frac{dL}{d\theta} \approx \sum_t \delta_t \frac{\partial h_t}{\partial \theta}
        \qquad \delta_t = 0 \text{ beyond the window of } t

    Williams & Peng 1990, https://doi.org/10.1162/neco.1990.2.4.490. Keeps what one window computed, and the outputs
    of all steps with their errors, since a loss may weigh all steps together.

    Args:
        window: steps of a window.

    Raises:
        RunError: `window` is less than 1, or the model has dropout or cannot go on from a state.
    """

    def __init__(self, model: Any, task: Task, config: Config, *, window: int = 16) -> None:
        super().__init__(model, task, config)
        if window < 1:
            raise RunError(f"the window of tbptt is {window}: it must be at least 1")
        refuse_pieces("tbptt", model)
        refuse_two_passes("tbptt", model)
        self.window = window

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        loss, error, _ = errors(self, batch, kept)
        state = kept
        for start in range(0, batch.inputs.shape[1], self.window):
            steps = slice(start, start + self.window)
            with first_count(self):
                outputs, state = forward(self.model, cut(batch, steps), state, self.config)
            # a window that only reads, as the source of a sequence to sequence model, says nothing
            if outputs.requires_grad:
                outputs.backward(error[:, steps])
            state = carried(state)
        update(loss)
        return state if self.config.tbptt else None


@contextlib.contextmanager
def first_count(rule: LearningRule, more: int = 0) -> Iterator[None]:
    """Count what is kept inside, and `more`, as the rule's memory, the first time."""
    if rule.memory_bytes:
        yield
        return
    kept: Kept
    with counting(rule.model) as kept:
        yield
    rule.memory_bytes = kept.nbytes + more


@torch.no_grad()
def _outputs(rule: LearningRule, batch: Batch, state: State | None) -> tuple[Tensor, State]:
    return forward(rule.model, batch, state, rule.config)


def errors(rule: LearningRule, batch: Batch, state: State | None) -> tuple[Tensor, Tensor, State]:
    """The loss, its slope in the outputs of every step, and the state after the batch: a pass that keeps nothing."""
    outputs, after = _outputs(rule, batch, state)
    outputs.requires_grad_()
    loss = rule.task.loss(outputs, batch)
    (error,) = torch.autograd.grad(loss, outputs)
    return loss.detach(), error, after


def refuse_two_passes(name: str, model: Any) -> None:
    """Refuse a model that two passes would not agree on.

    Raises:
        RunError: it has dropout.
    """
    if any(isinstance(x, torch.nn.Dropout) and x.p > 0 for x in model.modules()):
        raise RunError(f"{name} goes through every step twice, and dropout would draw twice: train it with dropout 0")


def refuse_pieces(name: str, model: Any) -> None:
    """Refuse a model that cannot go on, piece by piece, from a state without its history.

    Raises:
        RunError: its state grows, or it must have a sequence whole.
    """
    if model.grows:
        raise RunError(f"{name} cannot teach this pattern: its state grows, and is handed on without its history")
    if model.name in WHOLE:
        raise RunError(f"{name} cannot teach {model.name}: {WHOLE[model.name]}")


def cut(batch: Batch, steps: slice) -> Batch:
    """The inputs of some steps and their clock."""
    clock = Clock(batch.reset, batch.valid, batch.dt).cut(steps.start, steps.stop)
    return Batch(batch.inputs[:, steps], batch.targets, None, clock.reset, clock.valid, clock.dt)
