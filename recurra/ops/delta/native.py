"""`Delta` in C: forward is the recurrence in one pass over S a step, backward is by chunks of sixteen steps.

Forward costs four operations for each number of S a step. Backward (the UT form: a triangular solve gives a chunk's
writes at once) keeps nothing but the inputs: it runs the states forward again, holding one per 64 steps.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.delta import Delta, LowRank
from recurra.shapes import Float, Tensor


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """The general form, or what no kernel takes."""
    if isinstance(record, LowRank):
        return "there is no kernel for LowRank yet"
    return native.declines("delta", *record[:5], state)


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    *tensors, reset = record
    reset = None if reset is None else reset.contiguous()
    run = _Delta.apply if native.tracked(*tensors, state) else _forward
    return run(*tensors, state, reset)


def _fields(*inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Delta` of the C source, of the record's tensors, the first state and the resets."""
    *tensors, first, reset = inputs
    q, k, v, p, g = (None if x is None else native.lines(x) for x in tensors)
    assert q is not None and v is not None
    (B, T, H, K), V = q.shape, v.shape[-1]
    width = 0 if g is None else 1 if g.ndim == 3 else K
    rows = (x for tensor in (q, k, v, g, p) for x in native.rows(tensor))
    return (*rows, reset, first, B, T, H, K, V, width)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes, but for a first state of any layout."""
    *tensors, state, reset = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    native.call("delta", "forward", *_fields(*tensors, first, reset), last, read, torch.get_num_threads())
    return read, last


class _Delta(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return _forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, state, reset = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first = native.dense(state)
        state_grad = native.owned(last_grad, first)
        query, key, value, erase, decay = (None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in tensors)
        decay = decay if ctx.needs_input_grad[4] else None
        native.call(
            "delta", "backward", *_fields(*tensors, first, reset), native.given(read_grad, tensors[2]), state_grad,
            query, key, value, decay, erase, torch.get_num_threads(),
        )  # fmt: skip
        return query, key, value, erase, decay, state_grad, None
