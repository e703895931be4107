"""A few steps of a cell without gradients: one call of C, and as little Python around it as there can be.

The products of one row's step take a few microseconds, so thinking takes longer than computing. What depends on shapes
and types alone is therefore thought through once, in a plan. A plan holds no tensor: addresses are read anew at every
step, so weights that were changed, replaced or moved are seen.
"""

import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from recurra.ops import native
from recurra.ops.cell import Cell, Rule
from recurra.ops.native import direct
from recurra.shapes import Float, Tensor

SHORT = 32  # rows that are too few to pack R for
HEAD = 8  # fields of C's struct that shapes decide
FULL = "no memory for a few steps' scratch"

Outcome = tuple[Tensor, tuple[Tensor, ...]]
Plan = Callable[[Cell, tuple[Tensor, ...]], Outcome | None]


class Given(NamedTuple):
    """What a kernel is given of a record. A diagonal R is among the parameters."""

    x: Tensor  # or the drive itself, where there is no W
    entering: Tensor | None
    bias: Tensor | None
    weight: Tensor | None
    params: Tensor | None
    reset: Tensor | None
    valid: Tensor | None


def few(x: Float[Tensor, "B T _"]) -> bool:
    """Whether these are so few rows that packing R would cost more than it saves."""
    return x.shape[0] * x.shape[1] <= SHORT


def scan(engine: str, given: Given, state: tuple[Float[Tensor, "B N"], ...]) -> Outcome:
    """A few steps, however their tensors lie."""
    x, state = native.lines(given.x), tuple([native.dense(part) for part in state])
    given = Given(x, *(None if part is None else native.dense(part) for part in given[1:]))
    function, head, tail = _door(engine, x.dtype, len(state))
    read = x.new_empty((*x.shape[:2], state[0].shape[1]))
    last = tuple([torch.empty_like(part) for part in state])
    places = [_place(part) for part in (*given[5:], *given[:5], *state, read, *last)]
    if function(head(*_sizes(given, state)) + tail(torch.get_num_threads(), *places)):
        raise MemoryError(FULL)
    return read, last


def plan(rule: Rule, engine: str, given: Given, state: tuple[Float[Tensor, "B N"], ...]) -> Plan | None:
    """What takes the same steps of records like this one, faster; None where no such plan is made.

    The plan gives None for a record or a state that is unlike this one.
    """
    x, weights = given.x, given[1:5]
    tensors = [part for part in (x, *weights, *state) if part is not None]
    # a tensor of one number is dense however it lies, even as a promise of torch's to negate it
    if not all(_usual(part) and part.is_contiguous() and part.numel() > 1 for part in tensors):
        return None
    if given.reset is not None or given.valid is not None:
        return None
    function, head, tail = _door(engine, x.dtype, len(state))
    fixed, real, shape, rows, states = head(*_sizes(given, state)), x.dtype, x.shape, state[0].shape, len(state)
    like, make, threads = torch.empty((*shape[:2], rows[1]), dtype=real), torch.empty_like, torch.get_num_threads
    # with such an x and state a rule leaves every weight one shape, and one type of so many bytes
    sizes, known = [_bytes(part) for part in weights], [_place(part) for part in weights]
    diagonal = rule.operator == "diagonal"

    def step(record: Cell, state: tuple[Tensor, ...]) -> Outcome | None:
        of, x, weight, params, project, reset, valid, entering, bias = record
        if of is not rule or reset is not None or valid is not None or project is not None or len(state) != states:
            return None
        if x.shape != shape or x.dtype is not real or type(x) is not Tensor or not (x.is_cpu and x.is_contiguous()):
            return None
        for part in state:
            if part.shape != rows or part.dtype is not real or type(part) is not Tensor:
                return None
            if not (part.is_cpu and part.is_contiguous()):
                return None
        if diagonal:
            if params is not None:
                return None
            weight, params = None, weight
        weights = entering, bias, weight, params
        places = [0 if part is None else part.data_ptr() for part in weights]
        if [0 if part is None else part.nbytes if part.is_contiguous() else -1 for part in weights] != sizes:
            return None
        # a weight that lies where one lay cannot be of another kind or elsewhere than in memory
        if places != known and not all(part is None or _usual(part) for part in weights):
            return None
        read, last = make(like), tuple([make(part) for part in state])
        ends = [part.data_ptr() for part in (*state, read, *last)]
        if function(fixed + tail(threads(), 0, 0, x.data_ptr(), *places, *ends)):
            raise MemoryError(FULL)
        return read, last

    return step


def _usual(part: Tensor) -> bool:
    """Whether a tensor is a tensor and nothing more, in memory that C can read."""
    return type(part) in (Tensor, nn.Parameter) and part.is_cpu


def _place(part: Tensor | None) -> int:
    """An address, 0 for nothing."""
    return 0 if part is None else part.data_ptr()


def _bytes(part: Tensor | None) -> int:
    """How many, 0 for nothing."""
    return 0 if part is None else part.nbytes


def _sizes(given: Given, state: tuple[Tensor, ...]) -> tuple[int, ...]:
    """The sizes at the head of C's struct."""
    x, weight, N = given.x, given.weight, state[0].shape[1]
    heads = 1 if weight is None else weight.shape[1]
    return 8 * (HEAD + _tail(len(state))), *x.shape[:2], heads, N // heads, x.shape[2], x.stride(0), x.stride(1)


def _tail(states: int) -> int:
    """The fields after them: threads, two masks, x and its four weights, what is read, and both states."""
    return 1 + 2 + 5 + 1 + 2 * states


class _Door(NamedTuple):
    """The function in C, and what packs the two halves of its struct."""

    function: Callable[[bytes], int]
    head: Callable[..., bytes]
    tail: Callable[..., bytes]


@functools.cache
def _door(engine: str, real: torch.dtype, states: int) -> _Door:
    function = direct.function(engine, "short", real)
    return _Door(function, struct.Struct(f"{HEAD}q").pack, struct.Struct(f"{_tail(states)}q").pack)
