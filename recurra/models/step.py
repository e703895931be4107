"""One step of a model as one compiled function: the same numbers, with nothing between the kernels.

A step of one row is a handful of matrix-vector products, and the Python between them costs more than they do. So the
step is traced once (torch.export: engines in C step aside for their loops, whose passes can then be put together) and
written down as one function of C. What has no words there (complex numbers, solvers, narrow types) is compiled ahead of
time by torch, which takes longer and is slower. Weights are arguments and not constants: a change in place is seen, and
none is written into the code, as torch's compiler would do with short vectors.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from recurra.checks import at_least
from recurra.ops import native
from recurra.ops.native import direct
from recurra.ops.program import Declined, compiled
from recurra.ops.program.stages import constants
from recurra.shapes import State, Tensor
from recurra.state import each, leaves

log = logging.getLogger("recurra")

SETTINGS = {
    "cpp.dynamic_threads": True,  # as many as torch.set_num_threads says at the call
    "aot_inductor.compile_wrapper_opt_level": "O0",  # what calls the kernels: compiles sooner, runs as fast
}


class CompiledStep:
    """`y, state = step(x, state)`: the numbers of `model(x, state)` for one step, as one call without gradients.

    It takes as many rows as `x` has here, in evaluation. Weights may change in place, or be replaced by others of the
    same shape and type; the parts of the model and the numbers that they keep may not. Hooks hear nothing of it.
    Nothing given is changed.

    Args:
        model: what to step: LanguageModel, Forecaster or Classifier.
        x: an input of one step, `(B, 1, ...)`; its numbers do not matter.

    Raises:
        ValueError: the model is training, its state grows, there are no rows, or what it computes depends on the
            numbers it meets.
        RuntimeError: it cannot be compiled here (no compiler).
    """

    def __init__(self, model: Any, x: Tensor) -> None:
        kind = type(model).__name__
        if model.training:
            raise ValueError(f"this {kind} is training: call its eval() before compile_step()")
        if model.grows:
            raise ValueError(f"the state of this {kind} grows with the sequence: a compiled step needs one size")
        at_least(1, rows=len(x))
        # copies: of one tensor that is in two places the tracer would make one input
        self.start: State = each(lambda t: native.dense(t).clone(), model.initial_state(len(x)))
        self._shape = _numbered(self.start, iter(range(len(list(leaves(self.start))))))
        names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
        self._slots = [_slot(model, name) for name in names]
        self._tied = _tied(model)
        self._kept, self._names = _constants(model)
        self._were = [table[name] for table, name in self._kept]
        weights, states = self._weights(), list(leaves(self.start))
        self._inputs, self._kinds, self._strides = _kinds(x, *states), _kinds(*weights), _strides(weights)
        self._alike: Callable[..., bool] | None = None
        program = _trace(_Pure(model, names, self.start), (x, states, [w.detach() for w in weights]))
        self._run = _compile(program)

    @torch.no_grad()
    def __call__(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The output and the state after this step; without a state, of a first step.

        Raises:
            ValueError: `x` or the state is of another shape, type or device than compiled for.
            RuntimeError: a weight is, or another part of the model has changed.
        """
        inputs = [x, *leaves(self.start if state is None else state)]
        weights = self._weights()
        whole = len(inputs) == len(self._inputs)
        if not whole or self._alike is None or not self._alike(*inputs, *weights):
            inputs = self._checked(inputs, weights)
        y, *after = self._run([*inputs, *weights])
        return y, _filled(self._shape, after)

    def __reduce__(self) -> Any:
        """Refused: what is loaded into this process means nothing to another, and reads the weights of this model.

        Raises:
            TypeError: always.
        """
        raise TypeError("a compiled step cannot be copied or pickled: copy or save the model, then its compile_step()")

    def _checked(self, inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        """The inputs without gaps; what is like these need not be looked at one by one again."""
        if (kinds := _kinds(*inputs)) != self._inputs:
            raise ValueError(f"this step was compiled for {_first(self._inputs, kinds)}: compile another")
        if _kinds(*weights) != self._kinds or _strides(weights) != self._strides:
            raise RuntimeError("the model's weights are no longer what was compiled for: compile_step() again")
        inputs = [*map(native.dense, inputs)]
        self._alike = direct.alike(*inputs, *weights)
        return inputs

    def _weights(self) -> list[Tensor]:
        """Parameters and buffers as they are now.

        Raises:
            RuntimeError: something else of the model is not what it was.
        """
        try:
            same = [table[name] for table, name in self._kept] == self._were
            if not same or any(one[x] is not two[y] for (one, x), (two, y) in self._tied):
                raise KeyError
            return [table[name] for table, name in self._slots]
        except KeyError:
            raise RuntimeError(f"{self._changed()} is not what it was: compile_step() again") from None

    def _changed(self) -> str:
        """What of the model has changed."""
        pairs = zip(self._kept, self._were, self._names, strict=True)
        every = (path for (table, name), was, path in pairs if table.get(name) != was)
        return f"{next(every, 'a weight')} of the model"


class _Pure(nn.Module):
    """The model as a function of its input, the tensors of its state and its weights."""

    def __init__(self, model: nn.Module, names: list[str], start: State) -> None:
        super().__init__()
        # in a tuple: a module of ours would bring its weights along
        self.inside = model, names, start

    def forward(self, x: Tensor, states: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        model, names, start = self.inside
        given = iter(states)
        state = each(lambda _: next(given), start)
        y, after = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (x, state))
        # dense, so that they may come back as inputs
        return y, *(t.contiguous() for t in leaves(after))


@torch.no_grad()
def _trace(pure: _Pure, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> torch.export.ExportedProgram:
    """The graph of a step.

    Raises:
        ValueError: there is none.
    """
    try:
        return torch.export.export(pure, inputs, strict=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"this model's step cannot be compiled, call the model instead ({reason})") from error


def _compile(program: torch.export.ExportedProgram) -> Callable[[list[Tensor]], list[Tensor]]:
    """The graph as machine code: a function of the list of its inputs."""
    with warnings.catch_warnings():
        # torch's compiler uses what torch deprecates
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        try:
            return compiled(program)
        except Declined as reason:
            log.info("a step is compiled by torch, not written in C: %s", reason)
            return _compile_by_torch(program)


def _compile_by_torch(program: torch.export.ExportedProgram) -> Callable[[list[Tensor]], list[Tensor]]:
    """The same by torch's own compiler: slower both ways, but a graph may hold whatever torch has."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "step.pt2")
        torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=SETTINGS)
        # what is loaded keeps its own copy; called without torch's search for tensors in nested inputs
        return torch._inductor.aoti_load_package(path).loader.boxed_run


def _slot(model: nn.Module, name: str) -> tuple[Any, str]:
    """Where a module keeps a weight: read there at every step, it may be replaced."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    return (module._parameters if own in module._parameters else module._buffers), own


def _tied(model: nn.Module) -> list[tuple[tuple[Any, str], tuple[Any, str]]]:
    """Places of one weight, in pairs: to the trace they are one."""
    first: dict[int, str] = {}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    pairs = [(name, first.setdefault(id(x), name)) for name, x in every]
    return [(_slot(model, one), _slot(model, two)) for one, two in pairs if one != two]


def _constants(model: nn.Module) -> tuple[list[tuple[Any, str]], list[str]]:
    """Where modules keep their parts, numbers that are no tensors, and no weight; and the names of all these.

    A trace has them inside: another part or number, or a bias where was none, would not be seen, as another weight is.
    """
    places: list[tuple[Any, str]] = []
    names = []
    for path, module in model.named_modules():
        own = [name for name in constants(module) if name != "training"]
        found = [(module._modules, name) for name in module._modules] + [(vars(module), name) for name in own]
        found += [(x, name) for x in (module._parameters, module._buffers) for name in x if x[name] is None]
        places += found
        names += [".".join(filter(None, (path, name))) for _, name in found]
    return places, names


def _kinds(*tensors: Tensor) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    return [(t.shape, t.dtype, t.device) for t in tensors]


def _strides(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return [t.stride() for t in tensors]


def _numbered(state: State, numbers: Iterator[int]) -> Any:
    """The nested tuples of a state with numbers in place of tensors."""
    return next(numbers) if isinstance(state, Tensor) else tuple([_numbered(part, numbers) for part in state])


def _filled(shape: Any, tensors: list[Tensor]) -> State:
    """Tensors in place of the numbers."""
    return tensors[shape] if type(shape) is int else tuple([_filled(part, tensors) for part in shape])


def _first(expected: list[Any], given: list[Any]) -> str:
    """The first of the inputs that is not as expected, in words."""
    if len(expected) != len(given):
        return f"{len(expected) - 1} tensors of state, not {len(given) - 1}"
    index = next(i for i, pair in enumerate(zip(expected, given, strict=True)) if pair[0] != pair[1])
    old, new = (f"{tuple(shape)} of {dtype} on {device}" for shape, dtype, device in (expected[index], given[index]))
    return f"{'a tensor of state' if index else 'an input'} {old}, not {new}"
