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

from recurra.ops import native
from recurra.ops.cell import Cell, Rule
from recurra.ops.native import direct
from recurra.shapes import Float, Tensor

SHORT = 32  # rows that are too few to pack R for
HEAD = 8  # fields of C's struct that shapes decide
# in place of what a record has not, each of its own: at no address, and like nothing else
GAPS = [torch.empty(0, device="cpu") for _ in range(4)]
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
    if given.reset is not None or given.valid is not None or given.x.stride(2) != 1:
        return None
    weights = [gap if part is None else part for gap, part in zip(GAPS, given[1:5], strict=True)]
    alike = direct.alike(given.x, *weights, *state)
    if alike is None or not all(part.is_contiguous() for part in (*weights, *state)):
        return None
    function, head, tail = _door(engine, given.x.dtype, len(state))
    fixed, states, threads = head(*_sizes(given, state)), len(state), torch.get_num_threads
    diagonal = rule.operator == "diagonal"
    # the least that torch asks for to make a tensor of some shape is one of the same
    like = [given.x.new_empty((*given.x.shape[:2], state[0].shape[1])), *map(torch.empty_like, state)]
    make, place, no_input, no_bias, no_weight, no_params = torch.empty_like, Tensor.data_ptr, *GAPS

    def step(record: Cell, state: tuple[Tensor, ...]) -> Outcome | None:
        of, x, weight, params, project, reset, valid, entering, bias = record
        if of is not rule or reset is not None or valid is not None or project is not None:
            return None
        if diagonal:
            weight, params = params, weight
        tensors = (
            x,
            no_input if entering is None else entering,
            no_bias if bias is None else bias,
            no_weight if weight is None else weight,
            no_params if params is None else params,
            *state,
        )
        if len(state) != states or not alike(*tensors):
            return None
        made = [*map(make, like)]
        if function(fixed + tail(threads(), 0, 0, *map(place, tensors), *map(place, made))):
            raise MemoryError(FULL)
        return made[0], tuple(made[1:])

    return step


def _place(part: Tensor | None) -> int:
    """An address, 0 for nothing."""
    return 0 if part is None else part.data_ptr()


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
