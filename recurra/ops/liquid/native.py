"""`Liquid` in C: what moves a state is made where it is used, so that nothing of size B T D N exists.

For gradients the forward keeps the states at the start of every `WINDOW` steps, and the backward runs them again.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.liquid import Liquid
from recurra.shapes import Float, Inexact, Tensor


def declines(record: Liquid, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("liquid", *record[:5], state)


def scan(record: Liquid, state: Inexact[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    x, decay, write, limit, weight, reset, valid = record
    weights = torch.cat([*map(_parts, (decay, write, weight)), limit[..., None]], -1)
    reset, valid = map(native.mask, (reset, valid))
    inputs = x, _grouped(weights), _grouped(_parts(state)), reset, valid
    tracked = native.tracked(x, weights, state)
    read, last = _Liquid.apply(*inputs) if tracked else _forward(None, *inputs)
    last = last.movedim(-1, 2).flatten(1, 2)[:, : x.shape[2]]
    return read, torch.view_as_complex(last.contiguous()) if state.is_complex() else last[..., 0]


def _parts(x: Inexact[Tensor, "*B D N"]) -> Float[Tensor, "*B D N P"]:
    """The real part and the imaginary one, where there is one."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x[..., None]


def _grouped(x: Float[Tensor, "*B D N P"]) -> Float[Tensor, "*B G N P L"]:
    """Features by groups of as many as there are lanes. A lane without a feature computes NaN, which nobody reads."""
    return native.full(x, -3).unflatten(-3, (-1, native.LANES)).movedim(-3, -1).contiguous()


def _fields(x: Tensor, weights: Tensor, first: Tensor, reset: Tensor | None, valid: Tensor | None) -> tuple[Any, ...]:
    """The struct `Liquid` of the C source."""
    masks, sizes = (reset, valid), (*x.shape, *first.shape[2:4], torch.get_num_threads())
    return *native.rows(native.lines(x)), *masks, weights, first, *sizes


def _forward(kept: Tensor | None, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state; the states that the backward needs go to `kept`."""
    x, _, first, *_ = inputs
    read, last = torch.empty(x.shape, dtype=x.dtype), torch.empty_like(first)
    native.call("liquid", "forward", *_fields(*inputs), last, read, kept)
    return read, last


class _Liquid(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        x, _, first, *_ = inputs
        windows = -(-x.shape[1] // native.WINDOW)
        kept = first.new_empty((*first.shape[:2], windows, *first.shape[2:]))
        ctx.save_for_backward(*inputs, kept)
        ctx.set_materialize_grads(False)
        return _forward(kept, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, kept = ctx.saved_tensors
        x, weights, first, *_ = inputs
        read_grad, last_grad = grad_outputs
        first_grad, x_grad = native.owned(last_grad, first), torch.empty(x.shape, dtype=x.dtype)
        weights_grad = first.new_empty((len(x), *weights.shape))
        native.call(
            "liquid", "backward", *_fields(*inputs), kept, native.given(read_grad, x), first_grad, x_grad, weights_grad
        )
        return x_grad, weights_grad.sum(0), first_grad, None, None
