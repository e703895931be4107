"""A map in C, written from its trace and its gradient's. Costs reading each tensor once and writing each result once.

Going back everything is made again from what came in: a sigmoid more is cheaper than an array more. A parameter's
gradient is summed over blocks of steps, in their order, so that it is the same on any number of threads.
"""

import functools
import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.cell import Rule, emit
from recurra.ops.cell.trace import Traced, Untraceable, trace
from recurra.shapes import Tensor

FEW = 1 << 14  # numbers that are mapped sooner than a kernel is called
BLOCK = 64  # steps over which parameters' gradients are summed at once
FIELDS = 3  # that say where a tensor is
FULL, COLUMN, PARAM = "full", "column", "param"
Kinds = tuple[str, ...]


class Kernel(NamedTuple):
    """A map's C, and what each tensor is to it."""

    engine: str
    kinds: Kinds
    outputs: int


def declines(way: Any, tensors: tuple[Tensor, ...]) -> str | None:
    """Few numbers, narrow ones, shapes that are none of the three, a map that has no trace, or what no kernel takes."""
    first = tensors[0]
    if first.numel() < FEW:
        return f"torch maps fewer than {FEW} numbers sooner"
    kinds = _kinds(*(x.shape for x in tensors))
    if kinds is None:
        return f"shapes {[tuple(x.shape) for x in tensors]} are not one and its parts"
    kernel = _kernel(way.name, way.function, way.outputs, kinds)
    return kernel if isinstance(kernel, str) else native.declines(kernel.engine, *tensors)


def run(way: Any, tensors: tuple[Tensor, ...]) -> Any:
    kernel = _kernel(way.name, way.function, way.outputs, _kinds(*(x.shape for x in tensors)))
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


@functools.cache
def _kernel(name: str, function: Any, outputs: int, kinds: Kinds) -> Kernel | str:
    """The kernel of a map of such tensors, or why there is none."""

    def rule(drive: tuple, recur: tuple, state: tuple) -> tuple:
        results = function(*drive)
        results = (results,) if outputs == 1 else tuple(results)
        return results[0], results[1:]

    try:
        traced = trace(Rule(name, rule, len(kinds), 0, outputs - 1, operator="none"))
    except Untraceable as reason:
        return str(reason)
    source = _source(traced, kinds)
    engine = f"pointwise-{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    native.write(engine, source)
    return Kernel(engine, kinds, outputs)


def _layout(kernel: Kernel, tensors: tuple[Tensor, ...]) -> tuple[list[Tensor | int], tuple[int, int, int]]:
    """Each tensor's address and its ways to the next step and column; then steps, columns, and features of a column."""
    shape = tensors[0].shape
    steps, features = shape[0] * shape[1], math.prod(shape[2:])
    inner = shape[-1] if COLUMN in kernel.kinds else features
    fields: list[Tensor | int] = []
    for x, kind in zip(tensors, kernel.kinds, strict=True):
        if kind == PARAM:
            fields += [native.dense(x.expand(shape[2:])), 0, inner]
        else:
            x = native.lines(x.reshape(steps, features // inner, inner if kind == FULL else 1))
            fields += [x, *x.stride()[:2]]
    return fields, (steps, features // inner, inner)


def _forward(kernel: Kernel, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    fields, sizes = _layout(kernel, tensors)
    outputs = tuple(torch.empty(tensors[0].shape, dtype=tensors[0].dtype) for _ in range(kernel.outputs))
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
            torch.zeros((blocks, *shape[2:]), dtype=x.dtype) if kind == PARAM else torch.empty(x.shape, dtype=x.dtype)
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
{before}
                #pragma omp simd{sums}
                for (I u = 0; u < inner; u++) {{
{body}
                }}
{after}
            }}
    }}
    return 0;
}}
"""


def _source(traced: Traced, kinds: Kinds) -> str:
    ins, outs = traced.inputs, traced.outputs
    back = (*ins["g_read"], *ins["g_state"])
    ends = [(f"y{i}[u]", x) for i, x in enumerate((*outs["read"], *outs["state"]))]
    reads = [f"const REAL *restrict {line}" for line in _reads(kinds)]
    forward = reads + [f"REAL *restrict y{i} = {_dense(FIELDS * len(kinds) + i)};" for i in range(len(ends))]
    given: dict[int, str] = {x: f"x{i}" if kinds[i] == COLUMN else f"x{i}[u]" for i, x in enumerate(ins["drive"])}
    source = _loop("forward", FIELDS * len(kinds) + len(ends), forward, emit.body(traced, given, ends))

    at = FIELDS * len(kinds) + len(back)
    lines = reads + [f"const REAL *restrict g{i} = {_dense(FIELDS * len(kinds) + i)};" for i in range(len(back))]
    stores, sums, after = [], [], []
    for i, (x, kind) in enumerate(zip(outs["g_drive"], kinds, strict=True)):
        if kind == COLUMN:
            lines.append(f"REAL d{i} = 0;")
            sums.append((f"d{i}", x))
            after.append(f"((REAL *)f[{at + i}])[m * columns + c] = d{i};")
        elif kind == PARAM:
            lines.append(f"REAL *restrict d{i} = (REAL *)f[{at + i}] + block * F + c * inner;")
            sums.append((f"d{i}[u]", x))
        else:
            lines.append(f"REAL *restrict d{i} = {_dense(at + i)};")
            stores.append((f"d{i}[u]", x))
    given |= {x: f"g{i}[u]" for i, x in enumerate(back)}
    columns = [f"d{i}" for i, kind in enumerate(kinds) if kind == COLUMN]
    reduction = f" reduction(+:{', '.join(columns)})" if columns else ""
    source += _loop("backward", at + len(kinds), lines, emit.body(traced, given, stores, sums), after, reduction)
    return f'#define FUNCTIONS_ONLY\n#include "cell.h"\n{source}'


def _loop(name: str, fields: int, before: list[str], body: str, after: list[str] | tuple = (), sums: str = "") -> str:
    """One function of C, which takes so many fields and then four sizes."""
    body = body.replace(" \\\n", "\n")
    return LOOP.format(
        name=name, fields=fields + 4, sizes=fields, block=BLOCK, before="\n".join(before), sums=sums, body=body,
        after="\n".join(after),
    )  # fmt: skip


def _reads(kinds: Kinds) -> list[str]:
    """Where each tensor's numbers are that a column of features needs; of one number for them all, itself."""
    lines = []
    for i, kind in enumerate(kinds):
        at = FIELDS * i
        start = f"(const REAL *)f[{at}] + m * f[{at + 1}] + c * f[{at + 2}]"
        lines.append(f"x{i} = {start};" if kind != COLUMN else f"p{i} = {start}; const REAL x{i} = *p{i};")
    return lines


def _dense(field: int) -> str:
    """Where a whole tensor without gaps has the features of a column."""
    return f"(REAL *)f[{field}] + m * F + c * inner"
