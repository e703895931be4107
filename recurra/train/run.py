"""Everything that a step of training changes, in one place: what a checkpoint must hold, and nothing else."""

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Iterator
from typing import Any

import torch

from recurra.checks import at_least
from recurra.models import MODELS
from recurra.models.backbone import nearest
from recurra.shapes import State
from recurra.tasks import Task
from recurra.train import optimisers
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.masks import Masking, refuse
from recurra.train.rules import LearningRule, build as build_rule
from recurra.train.rules.backpropagation import refuse_pieces


@dataclasses.dataclass
class Run:
    """A model on its way.

    Args:
        model: with its weights.
        optimiser: with its averages.
        rule: how it learns.
        masking: which weights there are and how that changes; None: all are there.
        source: what a pipe holds back between batches, as JSON; None for other sources.
        state: what the rule keeps from batch to batch (what streams remember, when the state is carried), or None.
        step: updates done.
        tokens: steps of sequences seen.
        seconds: spent in updates, evaluation and saving left out.
    """

    model: Any
    optimiser: torch.optim.Optimizer
    rule: LearningRule
    masking: Masking | None = None
    source: dict[str, Any] | None = None
    state: State | None = None
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def begin(config: Config, task: Task) -> Run:
    """A run before its first step: the weights follow from the seed.

    Raises:
        RunError: the model cannot be built so, or cannot be masked, carry its state or learn by the rule.
    """
    torch.manual_seed(config.seed)
    model = build(config, task).to(config.device)
    if config.tbptt:
        refuse_pieces("tbptt", model)
    # before the rule, which may look how the weights connect
    masking = None if config.mask is None else Masking(model, config)
    rule = build_rule(model, task, config)
    if masking is not None:
        refuse(masking, rule, config.rule)
    return Run(model, optimisers.adamw(model, config.weight_decay, config.betas), rule, masking)


def build(config: Config, task: Task) -> Any:
    """The model that a run trains, with new weights."""
    name, arguments = describe(config, task)
    try:
        # here for every model: torch's own words for a negative size name no keyword
        at_least(1, width=arguments.get("width"))
        at_least(0, hidden=arguments.get("hidden"))
        return MODELS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise RunError(f"the {name} cannot be built: {error}") from error


def describe(config: Config, task: Task) -> tuple[str, dict[str, Any]]:
    """The model's name and all its keywords: the run's own, and those that the task dictates.

    Raises:
        RunError: there is no such model or keyword; the nearest is named.
    """
    name = task.head if config.model is None else config.model
    if name not in MODELS:
        raise RunError(f"there is no model {name!r}{nearest(name, MODELS)}")
    known = inspect.signature(MODELS[name]).parameters
    for keyword in config.arguments:
        if keyword not in known:
            raise RunError(f"the {name} has no keyword {keyword!r}{nearest(keyword, known)}")
    return name, {**config.arguments, **task.model_arguments()}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def exactly(config: Config) -> Iterator[None]:
    """Inside, sums are taken in one order: as many threads as the run asks for, deterministic algorithms on a CPU.

    A run that asks for none has as many as torch took: all cores, or what OMP_NUM_THREADS leaves of them.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.set_num_threads(config.threads or before[0])
    if config.device == "cpu" and not before[1]:
        torch.use_deterministic_algorithms(True)
        # it finds reads of memory that nobody wrote; that is a test's work, and costs time
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory = fill
