"""`Cell` in C that is written for its rule: forward, backward, and a few steps without gradients.

The product with R stands inside the loop; the rule's own lines come from its trace (`emit`). W x + b is made in pieces
of about a thousand steps, and used while it is in the cache: no array of the whole drive is ever made, and going
backward the three products of a piece follow its scan. A few steps make even that in C: one call, weights read once.
"""

import functools
import hashlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from recurra.ops import native
from recurra.ops.cell import TICKS, Cell, Rule, rules, step, torch as fused
from recurra.ops.cell.emit import emit
from recurra.ops.cell.step import Given
from recurra.ops.cell.trace import Untraceable, gathered
from recurra.ops.native import operators
from recurra.shapes import Float, Tensor

PIECE = 1024  # rows of W x that are made at once
FIRST = len(Given._fields)  # where the state begins among a kernel's inputs
GROUP = 64  # units of a head up to which the gradient of R is not left to torch
CROWD = 48  # rows with which torch's products come to be worth what they cost to begin

# Where torch's fused functions measured faster, on one thread: sequences of this many steps or fewer, in training, and
# for a crowd of rows without gradients. Their products are the same; an LSTM's gates are cheaper there, and so is a
# step that needs a graph. Everywhere else ours are up to ten times faster.
TRAINS = {rules.GRU_AFTER: 1, rules.ELMAN_TANH: 4, rules.ELMAN_RELU: 4}
RUNS = {rules.LSTM: sys.maxsize, rules.GRU_AFTER: 2, rules.ELMAN_TANH: 2, rules.ELMAN_RELU: 2}


class Kernel(NamedTuple):
    """A rule's C, and what the caller must know of it."""

    engine: str
    rule: Rule
    saved: int
    operands: tuple[int, ...]
    params: int
    shared: bool


def _kernel(rule: Rule) -> Kernel | str:
    """The kernel of a rule, or why there is none."""
    return _written(rule)


# as torch.compiler.assume_constant_result, which imports the compiler
_kernel._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _written(rule: Rule) -> Kernel | str:
    if len(rule.ticks) > TICKS:
        return f"a step of {rule.name} is {len(rule.ticks)} products, and C is written for {TICKS} at most"
    try:
        source, saved, operands, params, shared = emit(rule)
    except Untraceable as reason:
        return str(reason)
    name = re.sub(r"\W", "_", rule.name)
    engine = f"cell-{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    native.write(engine, source)
    kernel = Kernel(engine, rule, saved, operands, params, shared)
    fresh, forward, backward = partial(_fresh, kernel), partial(_forward, kernel), partial(_backward, kernel)
    native.KERNELS[engine] = operators.Kernel(fresh, forward, backward, results=1 + rule.state)
    return kernel


def declines(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """A rule that makes its own products or has no trace, a projected state, or what no kernel takes."""
    looks = [x if x is None else (x.shape, x.dtype, x.is_cpu) for x in (*record[1:], *state)]
    # the compiler looks through caches, and says so
    if torch.compiler.is_compiling():
        return _judged(record.rule, *looks)
    # what tensors stand for is not in their looks; nor can a rule be traced there
    return native.TRANSFORMED if native.transformed() else _verdict(record.rule, *looks)


def yields(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """Sizes at which torch has a faster function for the same cell, where no clock is in its way."""
    rule, x, weight, params, _, reset, valid, entering, bias = record
    B, T, _ = x.shape
    if B < CROWD and not torch.is_grad_enabled():
        return None
    trains = native.tracked(x, entering, bias, weight, params, *state)
    most = (TRAINS if trains else RUNS if B >= CROWD else {}).get(rule, 0)
    if most < T or reset is not None or valid is not None or fused.declines(record, state) is not None:
        return None
    return "torch's own function is faster at this size"


Look = tuple[torch.Size, torch.dtype, bool] | None


def _judged(
    rule: Rule, drive: Look, weight: Look, params: Look, project: Look, reset: Look, valid: Look, entering: Look,
    bias: Look, *state: Look,
) -> str | None:  # fmt: skip
    """Why a record and state that look like this are declined."""
    shapes = (None if x is None else x[0] for x in (drive, weight, params, project, reset, valid, entering, bias))
    reason = unknown(rule, [x[0] for x in state if x is not None], *shapes)
    if reason is not None:
        return reason
    kernel = _kernel(rule)
    if isinstance(kernel, str):
        return kernel
    kinds = (drive, weight, params, entering, bias, *state)
    samples = [torch.empty(1, dtype=x[1], device="cpu" if x[2] else "meta") for x in kinds if x is not None]
    return native.declines(kernel.engine, *samples)


# a step should not have to think it all over
_verdict = functools.lru_cache(4096)(_judged)


def unknown(
    rule: Rule, state: list[torch.Size], drive: Any, weight: Any, params: Any, project: Any, reset: Any, valid: Any,
    entering: Any, bias: Any,
) -> str | None:  # fmt: skip
    """Why no compiled form, on any machine, knows a rule with tensors of these shapes."""
    if rule.operator == "own":
        return f"the rule {rule.name} makes its own products"
    if project is not None:
        return "no kernel projects the state"
    (B, T, inputs), N = drive, state[0][-1]
    heads = weight[1] if weight is not None and len(weight) == 4 else 1
    own = {"dense": (rule.recur, heads, N // heads, N // heads), "diagonal": (rule.recur, N), "none": None}
    own["ticks"] = ((max(rule.ticks) + 1) * rule.recur, heads, N // heads, N // heads)
    masks, driven = (None, (B, T)), (rule.drive * N,)
    fits = (
        min(B, T, inputs, N) > 0
        and state == [(B, N)] * rule.state
        and weight == own[rule.operator]
        and params == ((rule.params, N) if rule.params else None)
        and reset in masks
        and valid in masks
        and ((*driven, inputs) == entering or (entering is None and driven == (inputs,)))
        and bias in (None, driven)
    )
    return None if fits else "the shapes do not fit the rule"


def scan(
    record: Cell, state: tuple[Float[Tensor, "B _"], ...]
) -> tuple[Float[Tensor, "B T _"], tuple[Float[Tensor, "B _"], ...]]:
    kernel = _kernel(record.rule)
    assert isinstance(kernel, Kernel)
    tracked = native.tracked(record.drive, *record[2:4], *record[-2:], *state)
    if not tracked and step.few(record.drive) and not torch.compiler.is_compiling():
        return step.scan(kernel.engine, _given(record), state)
    given = _given(record if record.input_weight is not None else record.driven())
    read, *last = operators.run(kernel.engine, 0, *given, *state)
    return read, tuple(last)


def plan(record: Cell, state: tuple[Tensor, ...]) -> step.Plan | None:
    """What takes steps like this one faster, without gradients; None where nothing does."""
    kernel = _kernel(record.rule)
    assert isinstance(kernel, Kernel)
    return step.plan(record.rule, kernel.engine, _given(record), state) if step.few(record.drive) else None


def _given(record: Cell) -> Given:
    """The kernel's view of a record."""
    _, x, weight, params, _, reset, valid, entering, bias = gathered(record)
    reset, valid = map(native.mask, (reset, valid))
    return Given(x, entering, bias, weight, params, reset, valid)


class _Piece(NamedTuple):
    """Steps whose products are made together."""

    start: int
    stop: int

    def of(self, x: Tensor | None) -> Tensor | None:
        """These steps of `(B, T, ...)`."""
        return None if x is None else x[:, self.start : self.stop]

    def rows(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "rows D"]:
        """These steps, one row each, in the order of time."""
        return x[:, self.start : self.stop].transpose(0, 1).flatten(0, 1)


def _rows(x: Float[Tensor, "B T D"]) -> Float[Tensor, "rows D"]:
    """One row each, in the order in which they lie."""
    return (x if x.stride(0) > x.stride(1) else x.transpose(0, 1)).flatten(0, 1)


def _pieces(x: Tensor, whole: bool) -> list[_Piece]:
    B, T, _ = x.shape
    length = T if whole else max(1, PIECE // B)
    return [_Piece(t, min(t + length, T)) for t in range(0, T, length)]


def _timed(B: int, T: int, width: int, like: Tensor) -> Tensor:
    """A fresh `(B, T, width)`, time first in memory: rows that are made together lie together."""
    return like.new_empty((T, B, width)).transpose(0, 1)


def _like(x: Tensor, width: int) -> Tensor:
    """A fresh `(B, T, width)` in the layout of x."""
    B, T, _ = x.shape
    return _timed(B, T, width, x) if x.stride(1) > x.stride(0) else x.new_empty((B, T, width))


def _beside(given: Given, steps: int, width: int) -> Tensor:
    """A fresh `(B, steps, width)`, rows in the order in which products are made: where there are none, as x lies."""
    x = given.x
    return _like(x, width) if given.entering is None else _timed(len(x), steps, width, x)


def _packing(weight: Tensor | None) -> Tensor | None:
    """Room for R in panels, whatever their width."""
    if weight is None:
        return None
    gates, heads, d, _ = weight.shape
    return weight.new_empty(gates * heads * d * (d + 64))


def _sizes(x: Tensor, weight: Tensor | None, N: int) -> tuple[int, ...]:
    """B, T, heads, units of each, threads."""
    heads = 1 if weight is None else weight.shape[1]
    return (*x.shape[:2], heads, N // heads, torch.get_num_threads())


def _strided(x: Tensor | None) -> tuple[Tensor | None, int, int]:
    """An address, and the strides of batch and time."""
    return (None, 0, 0) if x is None else (x, x.stride(0), x.stride(1))


def _masks(given: Given, piece: _Piece) -> tuple[Tensor | int | None, ...]:
    return piece.of(given.reset), piece.of(given.valid), given.x.shape[1]


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else native.dense(x)


def _fresh(kernel: Kernel, keep: bool, kind: int, inputs: operators.Given) -> tuple[Tensor, ...]:
    given, N = Given(*inputs[:FIRST]), inputs[FIRST].shape[1]
    outputs = _like(given.x, N), *(native.fresh(part) for part in inputs[FIRST:])
    return (*outputs, _beside(given, given.x.shape[1], kernel.saved * N)) if keep else outputs


def _forward(kernel: Kernel, kind: int, inputs: operators.Given, outputs: Sequence[Tensor]) -> None:
    given, first = Given(*inputs[:FIRST]), tuple(map(native.dense, inputs[FIRST:]))
    x, entering, bias, weight, params = given[:5]
    B, N = first[0].shape
    read, last = outputs[0], outputs[1 : 1 + len(first)]
    saved = outputs[-1] if len(outputs) > 1 + len(first) else None
    weight, params = _dense(weight), _dense(params)
    packed, hidden, drive = _packing(weight), x.new_empty((2, B, N)), native.lines(x)
    for piece in _pieces(x, entering is None):
        now = drive
        if entering is not None:
            now = _product(piece.rows(x), entering, bias).unflatten(0, (-1, B)).transpose(0, 1)
        native.call(
            kernel.engine, "forward", *_strided(now), *_sizes(now, weight, N), weight, packed, int(piece.start == 0),
            params, *_masks(given, piece), *_strided(piece.of(read)), *_strided(piece.of(saved)), hidden,
            *first, *last,
        )  # fmt: skip
        first = last


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b of many rows."""
    return torch.mm(x, weight.T) if bias is None else torch.addmm(bias, x, weight.T)


def _backward(
    kernel: Kernel, kind: int, wanted: Sequence[bool], kept: operators.Given, grads: operators.Given
) -> operators.Given:
    given, state, saved = Given(*kept[:FIRST]), kept[FIRST:-1], kept[-1]
    x, entering, _, weight, params = given[:5]
    B, T, _ = x.shape
    N = state[0].shape[1]
    read_grad = x.new_zeros((B, T, N)) if grads[0] is None else native.lines(grads[0])
    state_grads = [native.owned(grad, native.dense(part)) for grad, part in zip(grads[1:], state, strict=True)]
    sums = _Gradients(kernel, N, given, wanted)
    param_grads = None if params is None else x.new_zeros((len(x), *params.shape))
    weight, params, packed = _dense(weight), _dense(params), _packing(weight)
    for piece in reversed(_pieces(x, entering is None)):
        drive_grad, recur_grad = sums.room(piece)
        native.call(
            kernel.engine, "backward", *_strided(piece.of(saved)), *_sizes(drive_grad, weight, N), weight, packed,
            int(packed is not None and piece.stop == T), params, *_masks(given, piece),
            *_strided(piece.of(read_grad)), *_strided(drive_grad), *_strided(recur_grad), param_grads,
            *state_grads,
        )  # fmt: skip
        sums.add(piece, drive_grad, recur_grad, saved)
    param_grads = None if param_grads is None else param_grads.sum(0)
    return *sums.all, param_grads, None, None, *state_grads


class _Gradients:
    """Of x, W, b and R: what the gradients of a piece's drive and product add to each."""

    def __init__(self, kernel: Kernel, N: int, given: Given, wanted: Sequence[bool]) -> None:
        self.kernel, self.N, self.given, self.source, self.by = kernel, N, given, given.x, given.entering
        self.entering, self.bias, self.weight = (
            None if tensor is None or not needed else tensor.new_zeros(tensor.shape)
            for tensor, needed in zip(given[1:4], wanted[1:4], strict=True)
        )
        B, T, inputs = given.x.shape
        self.x = _timed(B, T, inputs, given.x) if wanted[0] and self.by is not None else None

    @property
    def all(self) -> tuple[Tensor | None, ...]:
        return self.x, self.entering, self.bias, self.weight

    def room(self, piece: _Piece) -> tuple[Tensor, Tensor | None]:
        """For the gradients of drive and of R h; no room for the second where both are one."""
        steps, rule = piece.stop - piece.start, self.kernel.rule
        drive = _beside(self.given, steps, rule.drive * self.N)
        if self.by is None:
            self.x = drive
        recur = len(rule.ticks) * rule.recur * self.N
        return drive, None if self.kernel.shared else _beside(self.given, steps, recur)

    def add(self, piece: _Piece, drive: Tensor, recur: Tensor | None, saved: Tensor) -> None:
        if self.by is not None:
            rows = _rows(drive)
            if self.entering is not None:
                self.entering.addmm_(rows.T, piece.rows(self.source))
            if self.bias is not None:
                self.bias += rows.sum(0)
            if self.x is not None:
                torch.mm(rows, self.by, out=piece.rows(self.x))
        if self.weight is not None:
            rule, kept = self.kernel.rule, _rows(saved[:, piece.start : piece.stop]).split(self.N, 1)
            rows = _rows(drive if recur is None else recur).chunk(len(rule.ticks), 1)
            kinds = self.weight.split(rule.recur)
            for kind, of_tick, place in zip(rule.ticks, rows, self.kernel.operands, strict=True):
                _outer(kinds[kind], of_tick, kept[place])


def _outer(weight: Float[Tensor, "G H d d"], rows: Tensor, hidden: Tensor) -> None:
    """Add the products of what goes into R and what comes out of it."""
    gates, heads, d, _ = weight.shape
    if heads == 1:
        weight.view(gates * d, d).addmm_(rows.T, hidden)
    else:
        small = d <= GROUP and native.declines("grouped", hidden) is None
        # a gate by itself, so that nothing need be copied to lie together
        for of_gate, grad in zip(weight, rows.chunk(gates, 1), strict=True):
            if small:
                x, grad, threads = native.lines(hidden), native.lines(grad), torch.get_num_threads()
                fields = x, x.stride(0), None, grad, grad.stride(0), None, of_gate, len(x), heads, d, threads
                native.call("grouped", "backward", *fields)
            else:
                grad, read = (part.unflatten(-1, (heads, d)).transpose(0, 1) for part in (grad, hidden))
                of_gate.baddbmm_(grad.mT, read)
