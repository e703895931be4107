"""`Delta` and `LowRank` in C: forward is the recurrence in one pass over S a step, backward is by chunks of 16 steps.

Forward costs four operations (`LowRank` five) for each number of S a step. Backward (the UT form: a triangular solve
gives a chunk's writes at once) keeps nothing but the inputs: it runs the states forward again, holding one per 64
steps.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.delta import Delta, LowRank
from recurra.shapes import Float, Tensor

KERNELS = {Delta: "delta", LowRank: "low_rank"}


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines(KERNELS[type(record)], *record[:-1], state)


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    *tensors, reset = record
    reset = None if reset is None else reset.contiguous()
    run = _Delta.apply if native.tracked(*tensors, state) else _forward
    return run(KERNELS[type(record)], *tensors, state, reset)


def _fields(*inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct of the C source, of the record's tensors in order, the first state and the resets."""
    *tensors, first, reset = inputs
    tensors = [None if x is None else native.lines(x) for x in tensors]
    query, value, log_decay = tensors[0], tensors[2], tensors[-1]
    assert query is not None and value is not None
    (B, T, H, K), V = query.shape, value.shape[-1]
    width = 0 if log_decay is None else 1 if log_decay.ndim == 3 else K
    rows = (x for tensor in tensors for x in native.rows(tensor))
    return (*rows, reset, first, B, T, H, K, V, width)


def _forward(kernel: str, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes, but for a first state of any layout."""
    *tensors, state, reset = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    native.call(kernel, "forward", *_fields(*tensors, first, reset), last, read, torch.get_num_threads())
    return read, last


class _Delta(Function):
    @staticmethod
    def forward(ctx: Any, kernel: str, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        ctx.kernel = kernel
        ctx.set_materialize_grads(False)
        return _forward(kernel, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, state, reset = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first = native.dense(state)
        state_grad = native.owned(last_grad, first)
        grads = [None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in tensors]
        if not ctx.needs_input_grad[len(tensors)]:
            grads[-1] = None  # the decay's gradient is dear
        native.call(
            ctx.kernel, "backward", *_fields(*tensors, first, reset), native.given(read_grad, tensors[2]), state_grad,
            *grads, torch.get_num_threads(),
        )  # fmt: skip
        return None, *grads, state_grad, None
