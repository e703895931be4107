"""`Selective` in C: the exponential is taken where it is used, so that nothing of size B T D N exists.

For gradients the forward keeps the state at every sixteenth step, and the backward runs the steps between again.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.selective import Selective
from recurra.shapes import Float, Tensor


def declines(record: Selective, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("selective", *record[:5], state)


def scan(record: Selective, state: Float[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    *tensors, reset = record
    reset = native.mask(reset)
    read, last = run("selective", 0, *tensors, state, reset)
    return read, last


def _split(x: Tensor, N: int) -> tuple[int, int, int]:
    """Threads, the channels of one task, and the tasks of a row: a row is split where there are fewer than threads."""
    B, T, D = x.shape
    # meeting at a barrier must be worth the work
    threads = min(torch.get_num_threads(), 1 + B * T * D * N // 200_000)
    groups = -(-threads // B)
    wide = -(-D // (16 * groups)) * 16
    return threads, wide, -(-D // wide)


def _fields(wide: int, *inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Selective` of the C source, of the record's tensors, the first state and the resets."""
    *tensors, first, reset = inputs
    x, step, rate, write, query = (native.lines(t) for t in tensors if t is not None)
    rows = (field for t in (x, step, write, query) for field in native.rows(t))
    return (*rows, native.dense(rate), reset, first, *x.shape, rate.shape[1], wide)


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    x, state = inputs[0], inputs[5]
    (B, T, D), N = x.shape, state.shape[-1]
    outputs = native.fresh(x), native.fresh(state)
    # the states that the backward needs
    shape = B, -(-T // 16), -(-D // 16) * 16, -(-N // 4) * 4
    return (*outputs, x.new_empty(shape)) if keep else outputs


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    *tensors, state, reset = inputs
    read, last, *kept = outputs
    threads, wide, _ = _split(read, state.shape[-1])
    fields = _fields(wide, *tensors, native.dense(state), reset)
    native.call("selective", "forward", *fields, last, read, kept[0] if kept else None, threads)


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *tensors, state, reset, kept = saved
    read_grad, last_grad = grads
    first = native.dense(state)
    state_grad = native.owned(last_grad, first)
    x, step, rate, write, query = tensors
    threads, wide, groups = _split(x, rate.shape[-1])
    x_grad, step_grad = (native.fresh(t) for t in (x, step))
    rate_grad = x.new_empty((len(x), *rate.shape))
    write_grad, query_grad = (t.new_empty((groups, *t.shape)) for t in (write, query))
    native.call(
        "selective", "backward", *_fields(wide, *tensors, first, reset), kept, native.given(read_grad, x),
        state_grad, x_grad, step_grad, rate_grad, write_grad, query_grad, threads,
    )  # fmt: skip
    return x_grad, step_grad, rate_grad.sum(0), write_grad.sum(0), query_grad.sum(0), state_grad, None


native.KERNELS["selective"] = Kernel(_fresh, _forward, _backward)
