"""`StateSpace` in C, by the blocks of `chunk`: what a feature's products need is made where it lies in the cache.

As torch makes them, every power of every feature is written, turned, conjugated and read a dozen times, and so are the
inputs, features first, and each product: more time than all arithmetic. Here x is read once and what is read is
written once; for its gradient the forward keeps the states before every block, and the powers are made again.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.state_space import StateSpace, chunk
from recurra.shapes import Float, Inexact, Tensor


def declines(record: StateSpace, state: Tensor) -> str | None:
    """What blocks decline, or what no kernel takes."""
    return chunk.declines(record, state) or native.declines("state_space", *record[:4], state)


def scan(
    record: StateSpace, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    x, log_decay, read, skip, reset, valid = record
    counts = None if valid is None else valid.sum(1)
    y, last = run("state_space", 0, x, log_decay, read, skip, state, native.mask(reset), counts)
    return y, last


def _size(x: Tensor) -> int:
    """Steps in a block: as many as fill the kernel's lanes."""
    return min(chunk.LENGTH, -(-x.shape[1] // native.LANES) * native.LANES)


def _fields(inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `Space` of the C source."""
    x, log_decay, read, skip, _, reset, counts = inputs
    given = (None if part is None else native.dense(part) for part in (log_decay, read, skip))
    parts = 1 + log_decay.is_complex()
    return *native.rows(native.lines(x)), *given, reset, counts, *x.shape, log_decay.shape[1], _size(x), parts


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    x, log_decay, _, _, state, *_ = inputs
    rows, steps, features = x.shape
    results = native.fresh(x), native.fresh(state)
    units = -(-log_decay.shape[1] // native.LANES) * native.LANES * (1 + log_decay.is_complex())
    # but for a row's first, every block whose state is kept comes after a whole one
    return (*results, x.new_empty(features, rows * (steps // _size(x) + 1), units)) if keep else results


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    y, last, *kept = outputs
    state = native.dense(inputs[4])
    native.call(
        "state_space", "forward", *_fields(inputs), state, last, y, kept[0] if kept else None, torch.get_num_threads()
    )  # fmt: skip


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, kept = saved
    x, _, _, _, state, *_ = inputs
    read_grad, last_grad = grads
    read_grad = torch.zeros_like(x) if read_grad is None else native.lines(read_grad)
    results = [None if part is None else native.fresh(part) for part in inputs[:5]]
    native.call(
        "state_space", "backward", *_fields(inputs), kept, *native.rows(read_grad), native.given(last_grad, state),
        *results, torch.get_num_threads(),
    )  # fmt: skip
    return *results, None, None


native.KERNELS["state_space"] = Kernel(_fresh, _forward, _backward)
