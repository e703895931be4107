"""`Walk` in C that is written for its function: all segments in one call forward and in one back.

The gradient of a weight that multiplies many rows is one product for all segments, of what the walk back leaves of it.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import Function
from torch.nn.modules import module as hooks

from recurra.ops import native
from recurra.ops.hooked import hooked
from recurra.ops.native import direct
from recurra.ops.once import once_differentiable
from recurra.ops.program.stages import Declined, Lowered, constants
from recurra.ops.walk import Walk, Way, emit, trace
from recurra.ops.walk.trace import Pair
from recurra.shapes import State, Tensor
from recurra.state import each, leaves

LARGE = 2**15  # numbers of a memory that fills so much of a core's cache that it is walked alone

# what was made of a way, or why there is no C for it
_sides: dict[tuple, "Side | str"] = {}


class Side(NamedTuple):
    """One direction in C."""

    engine: str
    lowered: Lowered
    made: State = ()  # forward: what a block makes, of no numbers
    pairs: Sequence[list[Pair] | int] = ()  # backward: what becomes a weight's gradient
    dear: Sequence[torch.Size] = ()  # forward: of which shapes what is kept is
    kept: Sequence[int] = ()  # backward: which of that it is given


def declines(record: Walk, state: State) -> str | None:
    """What has no C, or what no kernel takes."""
    tensors = [*record.way.weights, *leaves(record.ready), *leaves(record.start), *leaves(state)]
    kinds = {x.dtype for x in tensors}
    if record.way.key is None:
        return "it is not said what the function knows"
    if record.way.parts and (hooks._has_any_global_hook() or any(map(_altered, _modules(record.way)))):
        return "a part has hooks, a parametrisation or another's forward, which the kernels would not see"
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return "torch.compile cannot see into the kernels"
    if native.transformed():
        return native.TRANSFORMED
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses types call by call"
    if len(kinds) > 1 or not all(x.is_cpu and x.dtype.is_floating_point for x in tensors):
        return "the kernels take one type of numbers, on a CPU"
    # a trace knows it by where it lies: two parameters may be one there, and in the C for all that are alike
    if len({x.data_ptr() for x in record.way.weights}) < len(record.way.weights):
        return "one weight is given twice"
    if not all(x.is_contiguous() for x in record.way.weights):
        return "weights have gaps"
    if kinds & native.NARROW.keys() or native.available() is not None or not record.full.numel():
        return native.available() or "the kernels take float32 or float64, and segments"
    sides = [_forward(record, state)]
    if native.tracked(*tensors):
        sides.append(_backward(record, state))
    (kind,) = kinds
    reasons = [x if isinstance(x, str) else native.missing(x.engine, native.REALS[kind]) for x in sides]
    return next((x for x in reasons if x is not None), None)


def scan(record: Walk, state: State) -> tuple[tuple[State, State], State]:
    forward = _forward(record, state)
    assert isinstance(forward, Side)
    way, ready, start, fresh, full = record
    backward = None
    flat = [*way.weights, *leaves(ready), *leaves(start), *leaves(state)]
    if native.tracked(*flat):
        backward = _backward(record, state)
    counts = len(way.weights), len([*leaves(state)]), len([*leaves(ready)])
    found = iter(_Eager.apply(forward, backward, counts, native.mask(fresh), native.mask(full), *flat))
    before, made, last = (each(lambda _: next(found), like) for like in (state, forward.made, state))
    return (before, made), last


def _modules(way: Way) -> Iterator[nn.Module]:
    """All that the function may call."""
    return (x for part in way.parts for x in part.modules())


def _altered(module: nn.Module) -> bool:
    """Whether calling a module may do other than its class says, or its class is not one that was here to be read."""
    return bool(hooked(module) or not type(module).__module__.startswith(("torch.nn.modules.", "recurra.")))


def _together(batch: int, numbers: int) -> int:
    """How many rows of the batch go together, if a memory is so many numbers: threads have some each, and in cache."""
    return 1 if batch == 1 or numbers > LARGE else 2 if batch <= 4 else 4


def _rows(state: State) -> int:
    """How many rows of a state go together."""
    several = [*leaves(state)]
    return _together(len(several[0]), sum(x[:1].numel() for x in several))


def _block(record: Walk, state: State) -> tuple[int, State, State]:
    """The rows of a block, and a memory and what is ready of it, whose numbers do not matter."""
    rows = _rows(state)
    memory = each(lambda x: x.new_ones(rows, *x.shape[1:]), state)
    return rows, memory, each(lambda x: x.new_ones(rows, *x.shape[2:]), record.ready)


def _key(record: Walk, state: State) -> tuple:
    way, ready, *_ = record
    tensors = *((x.shape[1:], x.dtype) for x in leaves(state)), *((x.shape[2:], x.dtype) for x in leaves(ready))
    parts = tuple((type(x), *constants(x).items()) for x in _modules(way))
    return way.key, parts, tuple((x.shape, x.dtype) for x in way.weights), tensors, _rows(state)


def _forward(record: Walk, state: State) -> Side | str:
    """The way forward in C, or why there is none."""
    key = "forward", *_key(record, state)
    if key not in _sides:
        rows, memory, ready = _block(record, state)
        try:
            lowered, made, dear = trace.forward(record.way, memory, ready)
            text = emit.forward(lowered, rows, len(record.way.weights), len([*leaves(memory)]), len(dear))
            _sides[key] = Side(_written(text), lowered, each(lambda x: x.to("meta"), made), dear=dear)
        except Declined as reason:
            _sides[key] = str(reason)
    return _sides[key]


def _backward(record: Walk, state: State) -> Side | str:
    """The way back in C, or why there is none."""
    key = "backward", tuple(x.requires_grad for x in record.way.weights), *_key(record, state)
    if key not in _sides:
        rows, memory, ready = _block(record, state)
        counts = len(record.way.weights), len([*leaves(memory)]), len([*leaves(ready)])
        try:
            forward = _forward(record, state)
            back = trace.backward(record.way, memory, ready, forward.dear if isinstance(forward, Side) else ())
            text = emit.backward(back, rows, *counts)
            _sides[key] = Side(_written(text), back.lowered, pairs=back.pairs, kept=back.kept)
        except Declined as reason:
            _sides[key] = str(reason)
    return _sides[key]


def _written(text: str) -> str:
    """The engine of a text."""
    engine = f"walk-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    native.write(engine, text)
    return engine


def _call(side: Side, name: str, real: torch.dtype, *groups: Sequence[Tensor | None] | Tensor | int | None) -> None:
    fields: list[Any] = []
    for group in groups:
        fields += group if isinstance(group, (list, tuple)) else [group]
    addresses = [x if isinstance(x, int) else 0 if x is None else x.data_ptr() for x in fields]
    function = direct.function(side.engine, name, real)
    if function(struct.pack(f"{len(addresses)}q", *addresses)):
        raise MemoryError("no memory for a segment's scratch")


def _packed(side: Side, weights: Sequence[Tensor]) -> list[Tensor]:
    """Weights as rows of whole vectors: those that multiply turned over, or are ragged."""
    found = []
    for buffer, place in side.lowered.packed.items():
        batch, rows, columns = place.like.shape
        room = weights[place.buffer].new_zeros(side.lowered.sizes[buffer]).view(batch, rows, -1)
        like = place.like
        room[..., :columns] = weights[place.buffer].as_strided(like.shape, like.stride(), like.storage_offset())
        found.append(room)
    return found


class _Eager(Function):
    @staticmethod
    def forward(ctx: Any, side: Side, back: Side | None, counts: tuple[int, int, int], *tensors: Any) -> Any:
        fresh, full, *flat = tensors
        weights, ready, start, entry = _parts(flat, counts)
        (batch, segments), real = full.shape, entry[0].dtype
        before = [x.new_empty(batch, segments, *x.shape[1:]) for x in entry]
        made = [x.new_empty(batch, segments, *x.shape[1:], device="cpu") for x in leaves(side.made)]
        last = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in entry]
        blocks, wanted = -(-batch // _rows(entry)), () if back is None else back.kept
        room = {i: before[0].new_empty(blocks, segments, *side.dear[i]) for i in wanted}
        kept = [room.get(i) for i in range(len(side.dear))]
        _call(side, "forward", real, weights, _packed(side, weights), ready, start, entry, before, made, kept, last,
              fresh, full, batch, segments, torch.get_num_threads())  # fmt: skip
        ctx.save_for_backward(fresh, full, *weights, *ready, *before, *room.values())
        ctx.back, ctx.counts = back, counts
        ctx.set_materialize_grads(False)
        return *before, *made, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        fresh, full, *flat = ctx.saved_tensors
        back, counts = ctx.back, ctx.counts
        (weight_count, memory_count, ready_count), (batch, segments) = counts, full.shape
        weights, ready = flat[:weight_count], flat[weight_count : weight_count + ready_count]
        rest = flat[weight_count + ready_count :]
        before, kept, real = rest[:memory_count], rest[memory_count:], rest[0].dtype
        grads = [None if g is None else native.dense(g) for g in grad_outputs]
        of_before, of_made, of_last = grads[:memory_count], grads[memory_count:-memory_count], grads[-memory_count:]
        of_ready = [torch.empty_like(x) for x in ready]
        of_start, of_entry = ([x.new_empty(batch, *x.shape[2:]) for x in before] for _ in range(2))
        blocks = -(-batch // _rows([x[:, 0] for x in before]))
        places = dict(enumerate(back.lowered.outputs))
        sums = {x: ready[0].new_empty(blocks, *places[x].like.shape) for x in back.pairs if isinstance(x, int)}
        pairs = {
            x: before[0].new_empty(blocks, segments, *places[x].like.shape)
            for x in places if x >= memory_count + ready_count and x not in sums
        }  # fmt: skip
        _call(back, "backward", real, weights, _packed(back, weights), ready, kept, before, of_before, of_made, of_last,
              of_ready, of_start, of_entry, [*sums.values()], [*pairs.values()], fresh, full, batch, segments,
              torch.get_num_threads())  # fmt: skip
        found = iter(back.pairs)
        of_weights = [
            _gradient(next(found), sums, pairs).reshape(x.shape) if need else None
            for x, need in zip(weights, ctx.needs_input_grad[5:], strict=False)
        ]
        return None, None, None, None, None, *of_weights, *of_ready, *of_start, *of_entry


def _parts(flat: Sequence[Tensor], counts: tuple[int, int, int]) -> tuple[list[Tensor], ...]:
    """Weights, what is ready, the memory at the start and before, without gaps."""
    weights, memory, ready = counts
    ends = [0, weights, weights + ready, weights + ready + memory, weights + ready + 2 * memory]
    return tuple([native.dense(x) for x in flat[a:b]] for a, b in pairwise(ends))


def _gradient(way: list[Pair] | int, sums: dict[int, Tensor], pairs: dict[int, Tensor]) -> Tensor:
    """A weight's, of what blocks added up or of pairs of matrices."""
    if isinstance(way, int):
        return sums[way].sum(0)
    found = [pairs[one].flatten(0, -2).T @ pairs[two].flatten(0, -2) for one, two, _ in way]
    return sum((x.T if turned else x for x, (*_, turned) in zip(found, way, strict=True)), start=torch.zeros(()))
