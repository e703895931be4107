"""`ShortConv` in C: one pass over the inputs, with the taps, the bias and SiLU where they are read."""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.conv import ShortConv
from recurra.ops.steps import gaps
from recurra.shapes import Float, Tensor

MOST = 16


def declines(record: ShortConv, state: Tensor) -> str | None:
    """Very many taps, gaps between the steps that happened, or what no kernel takes."""
    if record.weight.shape[1] > MOST:
        return f"the kernel takes up to {MOST} taps, not {record.weight.shape[1]}"
    return gaps(record.valid) or native.declines("conv", record.x, record.weight, record.bias, state)


def scan(record: ShortConv, state: Float[Tensor, "B J D"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B J D"]]:
    x, weight, bias, silu, reset, valid = record
    reset = None if reset is None else reset.contiguous()
    counts = None if valid is None else valid.sum(1)
    run = _Conv.apply if native.tracked(x, weight, bias, state) else _forward
    return run(silu, x, weight, bias, state, reset, counts)


def _fields(
    silu: bool,
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
    return (
        *rows, native.dense(state), native.dense(weight), bias, reset, counts, *x.shape, weight.shape[1], int(silu),
    )  # fmt: skip


def _forward(silu: bool, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes."""
    x, state = inputs[0], inputs[3]
    read, last = torch.empty(x.shape, dtype=x.dtype), torch.empty(state.shape, dtype=x.dtype)
    native.call("conv", "forward", *_fields(silu, *inputs), last, read, torch.get_num_threads())
    return read, last


class _Conv(Function):
    @staticmethod
    def forward(ctx: Any, silu: bool, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        ctx.silu = silu
        ctx.set_materialize_grads(False)
        return _forward(silu, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        x, weight, bias, state = (None if t is None else torch.empty(t.shape, dtype=t.dtype) for t in inputs[:4])
        last_grad = None if last_grad is None else native.dense(last_grad)
        native.call(
            "conv", "backward", *_fields(ctx.silu, *inputs), native.given(read_grad, inputs[0]), last_grad,
            x, state, weight, bias, torch.get_num_threads(),
        )  # fmt: skip
        return None, x, weight, bias, state, None, None
