"""A map in C, written from its trace and its gradient's. Costs reading each tensor once and writing each result once.

Going back everything is made again from what came in: a sigmoid more is cheaper than an array more, and a vector that
was just summed lies near when it is read again. A parameter's gradient is summed over blocks of steps, in their order,
so that it is the same on any number of threads.
"""

import functools
import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops import native
from recurra.ops.cell import Rule, emit
from recurra.ops.cell.trace import Traced, Untraceable, trace
from recurra.ops.once import once_differentiable
from recurra.shapes import Tensor

FEW = 1 << 14  # numbers that are mapped sooner than a kernel is called
LEAST = native.LANES  # numbers in a vector, below which a kernel's loop hardly begins
BLOCK = 64  # steps over which parameters' gradients are summed at once
FIELDS = 3  # that say where a tensor is
FULL, COLUMN, PARAM = "full", "column", "param"
Kinds = tuple[str, ...]


class Kernel(NamedTuple):
    """A map's C, and what each tensor is to it."""

    engine: str
    kinds: Kinds
    outputs: int
    sums: bool
    complex: bool


def declines(way: Any, tensors: tuple[Tensor, ...]) -> str | None:
    """Few numbers, narrow ones, shapes that are none of the three, a map that has no trace, or what no kernel takes."""
    first = tensors[0]
    if first.numel() < FEW:
        return f"torch maps fewer than {FEW} numbers sooner"
    kinds = _kinds(*(x.shape for x in tensors))
    if kinds is None:
        return f"shapes {[tuple(x.shape) for x in tensors]} are not one and its parts"
    if _inner(tensors, kinds, way.sums) < LEAST:
        return f"torch maps vectors of fewer than {LEAST} numbers sooner"
    parts = _parts(tensors)
    if any(many == 2 and kind != FULL for many, kind in zip(parts, kinds, strict=True)):
        return "complex numbers are taken where each feature has its own"
    kernel = _kernel(way, kinds, parts)
    return kernel if isinstance(kernel, str) else native.declines(kernel.engine, *tensors)


def run(way: Any, tensors: tuple[Tensor, ...]) -> Any:
    kernel = _kernel(way, _kinds(*(x.shape for x in tensors)), _parts(tensors))
    assert isinstance(kernel, Kernel)
    outputs = _Map.apply(kernel, *tensors) if native.tracked(*tensors) else _forward(kernel, tensors)
    return outputs[0] if way.outputs == 1 else outputs


@functools.lru_cache(4096)
def _kinds(*shapes: torch.Size) -> Kinds | None:
    """What each tensor is, by its shape; None where one is none of the three."""
    whole = shapes[0]
    kinds = []
    for shape in shapes:
        if shape == whole:
            kinds.append(FULL)
        elif len(shape) == len(whole) and shape == (*whole[:-1], 1):
            kinds.append(COLUMN)
        elif len(shape) <= len(whole) - 2 and shape == whole[len(whole) - len(shape) :]:
            kinds.append(PARAM)
        else:
            return None
    return tuple(kinds) if len(whole) > 2 else None


def _inner(tensors: tuple[Tensor, ...], kinds: Kinds, sums: Any) -> int:
    """Features that the kernel's innermost loop runs over: of a column, where one number is for all of them, or one
    column is for several."""
    shape = tensors[0].shape
    return shape[-1] if sums or COLUMN in kinds or any(map(_repeats, tensors)) else math.prod(shape[2:])


def _repeats(x: Tensor) -> bool:
    """Whether columns of a tensor are the same numbers in memory."""
    return any(many > 1 and not stride for many, stride in zip(x.shape[2:-1], x.stride()[2:-1], strict=True))


def _parts(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    """How many real numbers each tensor's are made of."""
    return tuple(1 + x.is_complex() for x in tensors)


@functools.cache
def _kernel(way: Any, kinds: Kinds, parts: tuple[int, ...]) -> Kernel | str:
    """The kernel of a map of such tensors, or why there is none."""
    try:
        given = sum(parts)
        first = None if way.sums is None else _traced(way.name, way.sums, given, ())
        sums = 0 if first is None else len(first.outputs["read"] + first.outputs["state"])
        traced = _traced(way.name, way.function, given + sums + bool(sums), way.constants)
        source = _source(traced, first, kinds, parts, 1 + way.complex)
    except Untraceable as reason:
        return str(reason)
    engine = f"pointwise-{way.name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    native.write(engine, source)
    return Kernel(engine, kinds, way.outputs, first is not None, way.complex)


def _traced(name: str, function: Any, given: int, constants: tuple) -> Traced:
    """The graph of a function of so many tensors, and of its gradient."""

    def results(*tensors: Tensor) -> tuple:
        found = function(*tensors, *constants)
        return found if isinstance(found, tuple) else (found,)

    def rule(drive: tuple, recur: tuple, state: tuple) -> tuple:
        first, *others = results(*drive)
        return first, tuple(others)

    outputs = len(results(*torch.ones(given, 1)))
    return trace(Rule(name, rule, given, 0, outputs - 1, operator="none"))


def _layout(kernel: Kernel, tensors: tuple[Tensor, ...]) -> tuple[list[Tensor | int], tuple[int, int, int]]:
    """Each tensor's address and its ways to the next step and column; then steps, columns, and features of a column."""
    shape = tensors[0].shape
    steps, features = shape[0] * shape[1], math.prod(shape[2:])
    inner = _inner(tensors, kernel.kinds, kernel.sums)
    fields: list[Tensor | int] = []
    for x, kind in zip(tensors, kernel.kinds, strict=True):
        if kind == PARAM:
            fields += [native.dense(x.expand(shape[2:])), 0, inner]
        else:
            x = native.lines(x.reshape(steps, features // inner, inner if kind == FULL else 1))
            # in real numbers, as the kernel counts
            fields += [x, *(stride * (1 + x.is_complex()) for stride in x.stride()[:2])]
    return fields, (steps, features // inner, inner)


def _forward(kernel: Kernel, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    fields, sizes = _layout(kernel, tensors)
    real = tensors[0].real.dtype
    kind = real.to_complex() if kernel.complex else real
    outputs = tuple(torch.empty(tensors[0].shape, dtype=kind, device="cpu") for _ in range(kernel.outputs))
    native.call(kernel.engine, "forward", *fields, *outputs, *sizes, torch.get_num_threads())
    return outputs


class _Map(Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *tensors: Tensor) -> Any:
        ctx.kernel = kernel
        ctx.save_for_backward(*tensors)
        return _forward(kernel, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernel, tensors = ctx.kernel, ctx.saved_tensors
        fields, sizes = _layout(kernel, tensors)
        shape, blocks = tensors[0].shape, -(-sizes[0] // BLOCK)
        grads = [
            x.new_zeros((blocks, *shape[2:])) if kind == PARAM else x.new_empty(x.shape)
            for x, kind in zip(tensors, kernel.kinds, strict=True)
        ]
        given = [native.dense(grad) for grad in grad_outputs]
        native.call(kernel.engine, "backward", *fields, *given, *grads, *sizes, torch.get_num_threads())
        ends = zip(grads, tensors, kernel.kinds, strict=True)
        return None, *(grad.sum(0).sum_to_size(x.shape) if kind == PARAM else grad for grad, x, kind in ends)


# Rows are blocks of steps, tasks for threads. A column is one number for `inner` features; without any, a row is one.
LOOP = """
I pointwise_{name}(const I *f, I fields) {{
    if (fields != {fields}) return 2;
    const I rows = f[{sizes}], columns = f[{sizes} + 1], inner = f[{sizes} + 2], F = columns * inner;
    const I blocks = (rows + {block} - 1) / {block};
    #pragma omp parallel for schedule(static) num_threads(enough(rows * F, f[{sizes} + 3]))
    for (I block = 0; block < blocks; block++) {{
        const I end = rows < (block + 1) * {block} ? rows : (block + 1) * {block};
        for (I m = block * {block}; m < end; m++)
            for (I c = 0; c < columns; c++) {{
{body}
            }}
    }}
    return 0;
}}
"""


def _source(traced: Traced, first: Traced | None, kinds: Kinds, parts: tuple[int, ...], out_parts: int) -> str:
    """Of a map, and, where sums come first, of what is summed. Complex numbers are `parts` that lie side by side."""
    ins, outs = traced.inputs, traced.outputs
    results, back = (*outs["read"], *outs["state"]), (*ins["g_read"], *ins["g_state"])
    many = len(results) // out_parts
    places = [place for i in range(many) for place in _places(f"y{i}", out_parts)]
    ends = list(zip(places, results, strict=True))
    # which tensor each of the function's arguments is of, and its place
    slots = [
        (i, f"{i}" if kind == COLUMN else place)
        for i, (kind, part) in enumerate(zip(kinds, parts, strict=True))
        for place in _places(f"{i}", part)
    ]
    tensors = [f"x{place}" for _, place in slots]
    reads = [f"const REAL *restrict {line}" for line in _reads(kinds)]
    count = 0
    if first is not None:
        of = (*first.outputs["read"], *first.outputs["state"])
        count = len(of)
        given: dict[int, str] = dict(zip(first.inputs["drive"], tensors, strict=True))
        totals = [(f"s{i}", x) for i, x in enumerate(of)]
        reads += [*(f"REAL s{i} = 0;" for i in range(count)), _each(emit.body(first, given, [], totals), totals)]
        tensors += [*(f"s{i}" for i in range(count)), "(REAL)inner"]
    given = dict(zip(ins["drive"], tensors, strict=True))

    at = FIELDS * len(kinds)
    lines = [f"REAL *restrict y{i} = {_dense(at + i, out_parts)};" for i in range(many)]
    source = _loop("forward", at + many, [*reads, *lines, _each(emit.body(traced, given, ends))])

    lines = reads + [f"const REAL *restrict g{i} = {_dense(at + i, out_parts)};" for i in range(many)]
    at += many
    after = []
    for i, (kind, part) in enumerate(zip(kinds, parts, strict=True)):
        if kind == COLUMN:
            lines.append(f"REAL d{i} = 0;")
            after.append(f"((REAL *)f[{at + i}])[m * columns + c] = d{i};")
        elif kind == PARAM:
            lines.append(f"REAL *restrict d{i} = (REAL *)f[{at + i}] + block * F + c * inner;")
        else:
            lines.append(f"REAL *restrict d{i} = {_dense(at + i, part)};")
    grads = [(kinds[i] == FULL, f"d{place}", x) for (i, place), x in zip(slots, outs["g_drive"], strict=False)]
    stores, sums = ([(place, x) for whole, place, x in grads if whole == stored] for stored in (True, False))
    lines += [f"REAL e{i} = 0;" for i in range(count)]
    sums += [(f"e{i}", x) for i, x in enumerate(outs["g_drive"][len(slots) : len(slots) + count])]
    places = [place for i in range(many) for place in _places(f"g{i}", out_parts)]
    given |= dict(zip(back, places, strict=True))
    lines.append(_each(emit.body(traced, given, stores, sums), sums))
    if first is not None:
        given = dict(zip(first.inputs["drive"], tensors, strict=False))
        given |= {x: f"e{i}" for i, x in enumerate((*first.inputs["g_read"], *first.inputs["g_state"]))}
        zero = first.graph.const(0)
        sums = [(f"d{place}", x) for (_, place), x in zip(slots, first.outputs["g_drive"], strict=True) if x != zero]
        lines.append(_each(emit.body(first, given, [], sums), sums))
    source += _loop("backward", at + len(kinds), [*lines, *after])
    return f'#define FUNCTIONS_ONLY\n#include "cell.h"\n{source}'


def _each(body: str, sums: list[tuple[str, Any]] | tuple = ()) -> str:
    """C for each feature of a column, some of it summed up: into what is one number for them all by a reduction."""
    totals = [place for place, _ in sums if not place.endswith("]")]
    reduction = f" reduction(+:{', '.join(totals)})" if totals else ""
    return f"#pragma omp simd{reduction}\nfor (I u = 0; u < inner; u++) {{\n{body}\n}}".replace(" \\\n", "\n")


def _loop(name: str, fields: int, lines: list[str]) -> str:
    """One function of C, which takes so many fields and then four sizes."""
    return LOOP.format(name=name, fields=fields + 4, sizes=fields, block=BLOCK, body="\n".join(lines))


def _reads(kinds: Kinds) -> list[str]:
    """Where each tensor's numbers are that a column of features needs; of one number for them all, itself."""
    lines = []
    for i, kind in enumerate(kinds):
        at = FIELDS * i
        start = f"(const REAL *)f[{at}] + m * f[{at + 1}] + c * f[{at + 2}]"
        lines.append(f"x{i} = {start};" if kind != COLUMN else f"p{i} = {start}; const REAL x{i} = *p{i};")
    return lines


def _places(name: str, parts: int) -> list[str]:
    """Where an array has a feature's number, or its real and its imaginary part."""
    return [f"{name}[u]"] if parts == 1 else [f"{name}[2 * u]", f"{name}[2 * u + 1]"]


def _dense(field: int, parts: int = 1) -> str:
    """Where a whole tensor without gaps has the features of a column."""
    return f"(REAL *)f[{field}] + (m * F + c * inner) * {parts}"
