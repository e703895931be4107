"""`Selective` in C: the exponential is taken where it is used, so that nothing of size B T D N exists.

For gradients the forward keeps the state at every sixteenth step, and the backward runs the steps between again.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.selective import Selective
from recurra.shapes import Float, Tensor


def declines(record: Selective, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("selective", *record[:5], state)


def scan(record: Selective, state: Float[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    *tensors, reset = record
    reset = None if reset is None else reset.contiguous()
    if native.tracked(*tensors, state):
        return _Selective.apply(*tensors, state, reset)
    return _forward(None, *tensors, state, reset)


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


def _forward(kept: Tensor | None, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state; the states that the backward needs go to `kept`."""
    *tensors, state, reset = inputs
    x, first = tensors[0], native.dense(state)
    last, read = torch.empty_like(first), torch.empty(x.shape, dtype=x.dtype)
    threads, wide, _ = _split(x, first.shape[-1])
    native.call("selective", "forward", *_fields(wide, *tensors, first, reset), last, read, kept, threads)
    return read, last


class _Selective(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        (B, T, D), N = inputs[0].shape, inputs[2].shape[-1]
        kept = torch.empty(B, -(-T // 16), -(-D // 16) * 16, -(-N // 4) * 4, dtype=inputs[0].dtype)
        ctx.save_for_backward(*inputs, kept)
        ctx.set_materialize_grads(False)
        return _forward(kept, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, state, reset, kept = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first = native.dense(state)
        state_grad = native.owned(last_grad, first)
        x, step, rate, write, query = tensors
        threads, wide, groups = _split(x, rate.shape[-1])
        x_grad, step_grad = (torch.empty(t.shape, dtype=t.dtype) for t in (x, step))
        rate_grad = torch.empty((len(x), *rate.shape), dtype=x.dtype)
        write_grad, query_grad = (torch.empty((groups, *t.shape), dtype=t.dtype) for t in (write, query))
        native.call(
            "selective", "backward", *_fields(wide, *tensors, first, reset), kept, native.given(read_grad, x),
            state_grad, x_grad, step_grad, rate_grad, write_grad, query_grad, threads,
        )  # fmt: skip
        return x_grad, step_grad, rate_grad.sum(0), write_grad.sum(0), query_grad.sum(0), state_grad, None
