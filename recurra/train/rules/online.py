"""Learning without looking back: at every step an error meets what each layer remembers of its parameters' influence.

Nothing is kept of past steps, however many there were. Credit goes through the layers of one step exactly, by
backpropagation; through time it goes within each layer: how a layer's state now will move the layers above later is
not seen. So a rule whose influence is exact has the whole gradient of the last recurrent layer's parameters and of
all above it; those below learn from what they do at once and, in their own layer, from their past.
"""

import abc
import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from recurra.mixers import Mixer
from recurra.ops.scan import use
from recurra.ops.steps import restart
from recurra.shapes import State, Tensor
from recurra.state import each, leaves, nbytes
from recurra.tasks import Batch, Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward
from recurra.train.rules.backpropagation import cut, errors, first_count, refuse_pieces, refuse_two_passes
from recurra.train.rules.base import LearningRule, Update
from recurra.train.rules.influence import Influence
from recurra.train.rules.layer import Layer, Step

Context = contextlib.AbstractContextManager[Any]


class OnlineRule(LearningRule):
    """A rule that carries credit forwards. A subclass writes `remember`.

    A batch is one update, so that the weights stand still while their influence is gathered. The loss of a batch may
    weigh all steps together; its slope in each output is taken in a first pass, which keeps the outputs and no more.
    With `tbptt` in the run's settings the state and the influences are handed from batch to batch: credit then reaches
    back without end, through weights that have moved a little since.

    Args:
        model, task, config: as of every rule.
        around: what holds while steps are taken and differentiated: which paths are cut.
        listening: what holds while the error of one step's outputs goes down through the layers: how they hear of it.

    Raises:
        RunError: the model or one of its layers cannot learn so, or, of a batch, its steps have times between them.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        config: Config,
        *,
        around: Callable[[], Context] = contextlib.nullcontext,
        listening: Callable[[Tensor], Context] = contextlib.nullcontext,
    ) -> None:
        super().__init__(model, task, config)
        self.around, self.listening = around, listening
        refuse_pieces(config.rule, model)
        refuse_two_passes(config.rule, model)
        if not hasattr(model, "backbone"):
            raise RunError(f"{config.rule} needs a model that is a stack of mixers, and {model.name} is none")
        if config.precision != "float32":
            raise RunError(f"{config.rule} sums over all of the past: train it in float32, not {config.precision}")
        if getattr(model.backbone, "order", None) is not None:
            raise RunError(f"{config.rule} gives credit to each layer by itself, and this model's share a block")
        mixers = [block.mixer for block in model.backbone.blocks]
        self.layers = [Layer(mixer) for mixer in mixers]
        with self.running():
            self.influences = [self._remember(layer, mixers) for layer in self.layers]

    @abc.abstractmethod
    def remember(self, layer: Layer) -> Influence:
        """What a layer keeps; RunError where it cannot."""

    def _remember(self, layer: Layer, mixers: list[Mixer]) -> Influence:
        name, rule = type(layer.mixer).__name__, self.config.rule
        reason = refusal(layer.mixer, mixers)
        if reason is not None:
            raise RunError(f"{rule} cannot teach {name}: {reason}")
        try:
            return self.remember(layer)
        except RunError as error:
            raise RunError(f"{rule} cannot teach {name}: {error}") from error
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(f"{rule} cannot teach {name}: its step has no slopes row by row ({reason})") from error

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Steps are taken by the definitions, which torch can transform, and as `around` says."""
        with use("loop"), self.around(), warnings.catch_warnings():
            # torch goes row by row where it has no kernel for all rows: slow, and right
            warnings.filterwarnings("ignore", "There is a performance drop")
            yield

    def learn(self, batch: Batch, kept: State | None, update: Update) -> State | None:
        if batch.dt is not None:
            raise RunError(f"{self.config.rule} takes all steps as equally long, and these have times between them")
        rows, steps = batch.inputs.shape[:2]
        start = self.model.initial_state(rows), tuple(x.start(rows) for x in self.influences)
        state, memories = start if kept is None else kept
        loss, error, _ = errors(self, batch, state)
        with self.running():
            for t in range(steps):
                now = slice(t, t + 1)
                state, memories = self._step(cut(batch, now), error[:, now], state, memories)
        update(loss)
        return carried((state, memories)) if self.config.tbptt else None

    def _step(
        self, batch: Batch, error: Tensor, state: State, memories: tuple[State, ...]
    ) -> tuple[State, tuple[State, ...]]:
        """Add one step's part to the gradients; the state and the memories after it."""
        begins, happens = (None if x is None else x[:, 0] for x in (batch.reset, batch.valid))
        if begins is not None:
            begins = begins if happens is None else begins & happens
            memories = each(lambda x: restart(begins, x), memories)
        live = each(lambda x: x.detach().requires_grad_(x.is_floating_point() or x.is_complex()), state)
        with self._inputs() as inputs, self.listening(error):
            with first_count(self, nbytes(memories)):
                outputs, after = forward(self.model, batch, live, self.config)
            outputs.backward(error)
        new = []
        for layer, influence, memory, before, x in zip(
            self.layers, self.influences, memories, live, inputs, strict=True
        ):
            slopes = each(lambda s: torch.zeros_like(s) if s.grad is None else s.grad, before)
            layer.add(influence.credit(memory, layer.vector(slopes)).sum(0))
            at = Step(layer.vector(before).detach(), layer.whole(before), x[:, 0], begins)
            later = influence.advance(memory, at)
            if happens is not None:
                later = each(lambda a, b: torch.where(happens.view(-1, *[1] * (a.ndim - 1)), a, b), later, memory)
            new.append(later)
        return each(lambda x: x.detach(), after), tuple(new)

    @contextlib.contextmanager
    def _inputs(self) -> Iterator[list[Tensor]]:
        """What each layer reads inside, in order."""
        found: list[Tensor] = []
        hooks = [
            layer.mixer.register_forward_pre_hook(lambda _, given: found.append(given[0].detach()))
            for layer in self.layers
        ]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()


def refusal(mixer: Mixer, mixers: list[Mixer]) -> str | None:
    """Why no rule of this kind can teach a mixer, or None."""
    if any(x.requires_grad for x in leaves(mixer.initial_state(1))):
        return "its first state is made of its parameters, and influences begin at zero"
    if mixer.shares and sum(type(x) is type(mixer) for x in mixers) > 1:
        return "its later layers read what the first one shares, which is no state"
    if not any(x.is_floating_point() or x.is_complex() for x in leaves(mixer.initial_state(1))):
        return "it has no state that learning could go through"
    return None
