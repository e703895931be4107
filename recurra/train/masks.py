"""Sparse training by name: `recurra train SOURCE --mask NAME`. What the loop must do so that no absent weight moves."""

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recurra.checks import of_types
from recurra.models.backbone import nearest
from recurra.parts.masks import Connections, Mask, Matrix, matrices, modular, reaching, scattered
from recurra.parts.rewiring import SET, Hebbian, Rewiring, RigL, Static
from recurra.shapes import Tensor
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.rules.base import LearningRule
from recurra.train.rules.force import Force
from recurra.train.rules.fptt import FPTT
from recurra.train.rules.online import OnlineRule

MASKS: dict[str, type[Rewiring]] = {"static": Static, "set": SET, "rigl": RigL, "hebbian": Hebbian}
DENSITY = 0.1  # where neither a density nor modules are given


class Masking:
    """The mask of a run and how it is rewired.

    Args:
        model: what is trained; its absent weights are zeroed.
        config: the run's settings, with a `mask`.

    Raises:
        RunError: there is no such mask or keyword (the nearest is named), a value is out of range, or the model has
            nothing that can be masked so.
    """

    def __init__(self, model: Any, config: Config) -> None:
        name, given = str(config.mask), config.mask_arguments
        if name not in MASKS:
            raise RunError(f"there is no mask {name!r}{nearest(name, MASKS)}; there are {', '.join(MASKS)}")
        drawing, moving = _keywords(connect), _keywords(MASKS[name])
        for keyword in given:
            if keyword not in drawing + moving:
                raise RunError(f"{name} has no keyword {keyword!r}{nearest(keyword, drawing + moving)}")
        try:
            draws, moves = ({k: v for k, v in given.items() if k in known} for known in (drawing, moving))
            of_types(connect, draws)
            of_types(MASKS[name], moves)
            self.mask = connect(model, config.seed, **draws)
            self.rewiring = MASKS[name](self.mask, config.steps, config.seed, **moves)
        except ValueError as error:
            raise RunError(f"the mask cannot be made: {error}") from error
        self.first = True
        self.scores: Mapping[str, Tensor] = {}

    @property
    def moves(self) -> bool:
        """Whether connections come and go."""
        return not isinstance(self.rewiring, Static)

    def watching(self, step: int) -> contextlib.AbstractContextManager[Any]:
        """To be held while update number `step` is made: what a rule must see is seen."""
        # what cannot be seen is said at once and not at the first rewiring
        return self.rewiring.watching() if self.first or self.rewiring.due(step) else contextlib.nullcontext()

    def before(self, step: int) -> None:
        """When the gradients of update number `step` are whole.

        Raises:
            RunError: the rule cannot see what it must.
        """
        if self.first or self.rewiring.due(step):
            try:
                self.scores = self.rewiring.scores(step)
            except ValueError as error:
                raise RunError(f"the mask cannot be rewired: {error}") from error
        self.first = False
        self.mask.hide()

    def after(self, step: int, optimiser: torch.optim.Optimizer) -> int:
        """When the weights have moved. Returns how many connections are new."""
        new = self.mask.rewire(self.scores, self.rewiring.share(step)) if self.rewiring.due(step) else 0
        self.scores = {}
        self.mask.hold(optimiser)
        return new


def connect(
    model: Any,
    seed: int,
    *,
    where: str | None = None,
    density: float | None = None,
    allocation: str | None = None,
    modules: int | None = None,
    reach: int | None = None,
    stray: float | None = None,
) -> Mask:
    """The first connections of a model: drawn over all matrices, or units in modules that reach a few others.

    Args:
        model: whose weights are masked.
        seed: of the draws.
        where: a pattern of parameters' names; None: all matrices of linear layers, convolutions and dense cells.
        density: of all matrices together; None: 0.1.
        allocation: "erdos_renyi", the default, or "uniform".
        modules: in which the units of every matrix lie, instead of a density. A matrix with fewer inputs or outputs
            than modules stays whole, and counts as no part of the mask.
        reach: modules that each projects to, itself among them; None: 1.
        stray: the share of the other connections that there are all the same; None: 0.

    Raises:
        ValueError: keywords that do not go together, or nothing that can be masked so.
    """
    found = matrices(model, where)
    if not found:
        named = "in a linear layer, a convolution or a dense cell" if where is None else f"whose name matches {where!r}"
        raise ValueError(f"this model has no matrix {named}")
    if modules is not None and (density is not None or allocation is not None):
        raise ValueError("modules say which connections there are: give no density or allocation beside them")
    if modules is None and (reach is not None or stray is not None):
        raise ValueError("reach and stray say how modules are connected: give modules too")
    random = np.random.default_rng([seed, 0])
    if modules is None:
        chosen = scattered(found, DENSITY if density is None else density, allocation or "erdos_renyi", random)
        return Mask(found, chosen)
    return _in_modules(found, modules, 1 if reach is None else reach, stray or 0.0, random)


def _in_modules(found: dict[str, Matrix], modules: int, reach: int, stray: float, random: np.random.Generator) -> Mask:
    large = {name: matrix for name, matrix in found.items() if min(matrix.shape[1:3]) >= modules}
    if not large:
        raise ValueError(f"no matrix has {modules} inputs and outputs, one for each module")
    chosen: Connections = {}
    for name, matrix in large.items():
        chosen[name] = modular(matrix, reaching(modules, reach, random), stray, random)
    return Mask(large, chosen)


def refuse(masking: Masking, rule: LearningRule, name: str) -> None:
    """Refuse rules whose weights a mask cannot hold.

    Raises:
        RunError: with the reason.
    """
    if isinstance(rule, Force):
        raise RunError(f"{name} solves for whole rows of weights, and would fill what a mask leaves out: train without")
    if isinstance(rule, FPTT):
        raise RunError(f"{name} pulls weights to a mean of its own, also those that a mask leaves out: train without")
    if masking.moves and isinstance(rule, OnlineRule):
        raise RunError(f"{name} finds out once which weight moves which unit: only the mask static stays as it was")


def _keywords(function: Any) -> list[str]:
    kinds = inspect.signature(function).parameters.values()
    return [x.name for x in kinds if x.kind is inspect.Parameter.KEYWORD_ONLY]
