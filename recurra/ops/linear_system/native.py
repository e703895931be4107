"""`LinearSystem` in C, for systems of a few states: one pass over memory, in time, with the states in registers.

A block of `chunk` makes a product as wide as it is long of what a few numbers say. Costs reading x and writing what is
read once, forward, and half as much again backward; N (N + M + 1) products for every feature and step.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.linear_system import LinearSystem
from recurra.ops.native.operators import Given, Kernel, run
from recurra.shapes import Float, Tensor

MOST = 4
BLOCK = 16  # steps between two states that are kept for the gradient


def declines(record: LinearSystem, state: Tensor) -> str | None:
    """Systems of many states, or what no kernel takes."""
    reads, states = record.read.shape[1:]
    if max(reads, states) > MOST:
        return f"the kernel is for up to {MOST} states and reads of a feature, not {states} and {reads}"
    return native.declines("linear_system", *record[:4], state)


def scan(
    record: LinearSystem, state: Float[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D M"], Float[Tensor, "B D N"]]:
    *tensors, reset, valid = record
    read, last = run("linear_system", 0, *tensors, state, native.mask(reset), native.mask(valid))
    return read.transpose(2, 3), last


def _fields(inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `System` of the C source."""
    x, matrix, write, read, state, reset, valid = inputs
    dense = (native.dense(part) for part in (matrix, write, read))
    rows = native.rows(native.lines(x))
    return *rows, *dense, reset, valid, native.dense(state), *x.shape, read.shape[2], read.shape[1]


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    x, _, _, read, state, *_ = inputs
    (rows, steps, features), (reads, states) = x.shape, read.shape[1:]
    results = x.new_empty(rows, steps, reads, features), native.fresh(state)
    blocks, lanes = -(-steps // BLOCK), -(-features // native.LANES) * native.LANES
    kept = (torch.empty(rows, blocks, states, lanes, dtype=torch.float64, device=x.device),) if keep else ()
    return *results, *kept


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, last, *kept = outputs
    native.call(
        "linear_system", "forward", *_fields(inputs), last, read, kept[0] if kept else None, torch.get_num_threads()
    )  # fmt: skip


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, kept = saved
    x, matrix, write, read, state, *_ = inputs
    rows, steps, features = x.shape
    read_grad, last_grad = grads
    read_grad = (
        x.new_zeros(rows, steps, read.shape[1], features) if read_grad is None else native.dense(read_grad)
    )  # fmt: skip
    parts = [x.new_empty(rows, *part.shape) for part in (matrix, write, read)]
    x_grad, state_grad = native.fresh(x), native.owned(last_grad, native.dense(state))
    native.call(
        "linear_system", "backward", *_fields(inputs), kept, read_grad, x_grad, *parts, state_grad,
        torch.get_num_threads(),
    )  # fmt: skip
    return x_grad, *(part.sum(0) for part in parts), state_grad, None, None


native.KERNELS["linear_system"] = Kernel(_fresh, _forward, _backward)
