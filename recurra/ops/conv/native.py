"""`ShortConv` in C: one pass over the inputs, with the taps, the bias and SiLU where they are read.

More than sixteen taps are products of small matrices in the cache: J + 31 a feature and step, which is less time than
transforms take for a few hundred.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from recurra.ops import native
from recurra.ops.conv import ShortConv
from recurra.ops.native import direct
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.steps import gaps
from recurra.shapes import Float, Tensor

MOST = 128
SHORT = 32  # rows that are so few that thinking takes longer than computing


def declines(record: ShortConv, state: Tensor) -> str | None:
    """Very many taps, gaps between the steps that happened, or what no kernel takes."""
    if record.weight.shape[1] > MOST:
        return f"the kernel takes up to {MOST} taps, not {record.weight.shape[1]}"
    return gaps(record.valid) or native.declines("conv", record.x, record.weight, record.bias, state)


def scan(record: ShortConv, state: Float[Tensor, "B J D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    x, weight, bias, silu, reset, valid = record
    reset = native.mask(reset)
    counts = None if valid is None else valid.sum(1)
    read, last = run("conv", int(silu), x, weight, bias, state, reset, counts)
    return read, last


def plan(record: ShortConv, state: Float[Tensor, "B J D"]) -> Callable[[ShortConv, Tensor], Any] | None:
    """What takes a few steps like these again, without gradients; None where nothing does."""
    x, weight, bias, silu, reset, valid = record
    if x.shape[0] * x.shape[1] > SHORT:
        return None
    no_bias, read, last = torch.empty(0, device="cpu"), native.fresh(x), native.fresh(state)
    given = x, weight, no_bias if bias is None else bias, state
    if reset is not None or valid is not None or any(native.dense(part) is not part for part in given):
        return None
    fields = *_fields(int(silu), x, weight, given[2], state, None, None), last, read, torch.get_num_threads()
    again = direct.again("conv", "forward", fields, given, (read, last))
    if again is None:
        return None

    def step(record: ShortConv, state: Tensor) -> tuple[Tensor, Tensor] | None:
        x, weight, bias, now, reset, valid = record
        if now is not silu or reset is not None or valid is not None:
            return None
        done = again(x, weight, no_bias if bias is None else bias, state)
        return None if done is None else (done[0], done[1])

    return step


def _fields(
    silu: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    counts: Tensor | None,
) -> tuple[Tensor | int | None, ...]:
    """The struct `Conv` of the C source."""
    bias = None if bias is None else native.dense(bias)
    rows = native.rows(native.lines(x))
    return (*rows, native.dense(state), native.dense(weight), bias, reset, counts, *x.shape, weight.shape[1], silu)


def _fresh(keep: bool, silu: int, inputs: Given) -> tuple[Tensor, ...]:
    x, _, _, state, *_ = inputs
    return native.fresh(x), native.fresh(state)


def _forward(silu: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, last = outputs
    native.call("conv", "forward", *_fields(silu, *inputs), last, read, torch.get_num_threads())


def _backward(silu: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    read_grad, last_grad = grads
    x, weight, bias, state = (None if t is None else native.fresh(t) for t in saved[:4])
    last_grad = None if last_grad is None else native.dense(last_grad)
    native.call(
        "conv", "backward", *_fields(silu, *saved), native.given(read_grad, saved[0]), last_grad,
        x, state, weight, bias, torch.get_num_threads(),
    )  # fmt: skip
    return x, weight, bias, state, None, None


native.KERNELS["conv"] = Kernel(_fresh, _forward, _backward)
