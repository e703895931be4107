"""Eligibility traces: credit within a unit only, as a synapse could keep it. Recurrent products carry none back."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from recurra.mixers import Mixer
from recurra.ops import Cell, Rule, Scan
from recurra.ops.cell import loop
from recurra.ops.steps import restart
from recurra.shapes import Float, Tensor
from recurra.tasks import Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.rules.influence import Exact, Influence
from recurra.train.rules.layer import Layer
from recurra.train.rules.online import OnlineRule


class EProp(OnlineRule):
    r"""E-prop: each synapse keeps a trace of what it did to its own neuron, and an error tells what that was worth.

    .. math::
        \epsilon_t = \frac{\partial' s_t}{\partial s_{t-1}} \epsilon_{t-1} + \frac{\partial' s_t}{\partial \theta}
        \qquad \frac{dL}{d\theta} \approx \sum_t \frac{\partial' \ell_t}{\partial s_{t-1}} \epsilon_{t-1}
        + \left.\frac{\partial' \ell_t}{\partial \theta}\right|_{s_{t-1}}

    where :math:`\partial'` does not differentiate the h in any recurrent product R h, a unit's own included. It is the
    gradient of backpropagation with exactly that detached: Bellec et al. 2020,
    https://doi.org/10.1038/s41467-020-17236-y. The learning signal is the symmetric one: the read-out's own transpose,
    and through the layers of one step exactly. What is left of a step is a unit's own path (an LSTM's cell, a leak), so
    traces are as many as parameters, or as a unit has numbers for each.
    """

    def __init__(self, model: Any, task: Task, config: Config) -> None:
        super().__init__(model, task, config, around=lambda: detached(model))

    def remember(self, layer: Layer) -> Influence:
        return _traces(layer)


class RFLO(OnlineRule):
    r"""Random feedback local online learning: traces as e-prop's, and errors that come down by a random matrix.

    .. math::  \frac{dL}{d\theta} \approx \sum_t (B\, \delta_t)^\top \frac{\partial' y_t}{\partial \theta}
        \qquad \delta_t = \frac{\partial \ell_t}{\partial o_t}

    Murray 2019, https://doi.org/10.7554/eLife.43299, there for leaky tanh units (`ctrnn`; their trace is the paper's).
    B, drawn once, takes the error of the model's outputs to each layer's: the gradient of backpropagation with the
    recurrent products' h detached, and with B in place of every path from a layer's output y to the loss. What is not
    in a layer (embeddings, read-out, norms, MLPs) hears the exact error of its step.

    Args:
        seed: what B is drawn from, even in its sign and normal, with deviation 1 / sqrt(outputs).
    """

    def __init__(self, model: Any, task: Task, config: Config, *, seed: int = 0) -> None:
        self.seed = seed
        super().__init__(model, task, config, around=lambda: detached(model), listening=self._feedback)

    def remember(self, layer: Layer) -> Influence:
        return _traces(layer)

    def feedback(self, index: int, outputs: int) -> Float[Tensor, "O D"]:
        """The matrix to layer number `index`."""
        layer = self.layers[index]
        like, width = next(layer.mixer.parameters()), layer.mixer.config["width"]
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return (torch.randn(outputs, width, generator=draw) / outputs**0.5).to(like)

    @contextlib.contextmanager
    def _feedback(self, error: Tensor) -> Iterator[None]:
        """Inside, what a layer puts out hears the outputs' error and nothing else."""
        down = error.flatten(2)
        hooks = []
        for index, layer in enumerate(self.layers):
            heard = down @ self.feedback(index, down.shape[2]).to(down)

            def hear(_: Any, __: Any, output: Any, heard: Tensor = heard) -> None:
                output[0].register_hook(lambda slope: heard.to(slope))

            hooks.append(layer.mixer.register_forward_hook(hear))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextlib.contextmanager
def detached(model: torch.nn.Module) -> Iterator[None]:
    """Inside, a cell's step of length 1 makes its recurrent product of a state without history."""
    hooks = [x.register_forward_pre_hook(_detach, with_kwargs=True) for x in model.modules() if isinstance(x, Scan)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _detach(_: Any, given: tuple[Any, ...], more: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    record, state, *rest = given
    if not isinstance(record, Cell) or record.rule.operator not in ("dense", "diagonal") or record.drive.shape[1] != 1:
        return None
    clock = rest[0] if rest else more.get("clock")
    hidden = state[0].detach()
    if clock is not None and clock.reset is not None:
        begins = clock.reset if clock.valid is None else clock.reset & clock.valid
        hidden = restart(begins[:, 0], hidden)
    record = record.driven()
    drive = torch.cat([record.drive[:, 0], *loop.recur(record, hidden)], -1)[:, None]
    return (record._replace(rule=_own(record.rule), drive=drive, weight=None), state, *rest), more


def _own(rule: Rule) -> Rule:
    """The rule whose recurrent products come as drive."""

    def function(drive: Any, recur: Any, state: Any, *params: Tensor) -> Any:
        return rule.function(drive[: rule.drive], drive[rule.drive :], state, *params)

    name, drive = f"{rule.name}_own", rule.drive + rule.recur
    return rule._replace(name=name, function=function, drive=drive, recur=0, operator="none")


def _traces(layer: Layer) -> Influence:
    if not _product(layer.mixer):
        raise RunError("it has no recurrent product R h to leave out, and without that this is rtrl")
    return Exact(layer)


def _product(mixer: Mixer) -> bool:
    """Whether a step makes one: the lowered records have no weight, and say so by their rule's name."""
    found: list[bool] = []

    def look(_: Any, given: tuple[Any, ...]) -> None:
        found.append(isinstance(given[0], Cell) and given[0].rule.name.endswith("_own"))

    hooks = [x.register_forward_pre_hook(look) for x in mixer.modules() if isinstance(x, Scan)]
    try:
        with torch.no_grad():
            mixer(next(mixer.parameters()).new_zeros(1, 1, mixer.config["width"]))
    finally:
        for hook in hooks:
            hook.remove()
    return any(found)
