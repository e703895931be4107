"""`Liquid` in C: what moves a state is made where it is used, so that nothing of size B T D N exists.

For gradients the forward keeps the states at the start of every `WINDOW` steps, and the backward runs them again.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.liquid import Liquid
from recurra.ops.native.operators import Given, Kernel, run
from recurra.shapes import Float, Inexact, Tensor


def declines(record: Liquid, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("liquid", *record[:5], state)


def scan(record: Liquid, state: Inexact[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    x, decay, write, limit, weight, reset, valid = record
    weights = torch.cat([*map(_parts, (decay, write, weight)), limit[..., None]], -1)
    reset, valid = map(native.mask, (reset, valid))
    read, last = run("liquid", 0, x, _grouped(weights), _grouped(_parts(state)), reset, valid)
    last = last.movedim(-1, 2).flatten(1, 2)[:, : x.shape[2]]
    return read, torch.view_as_complex(last.contiguous()) if state.is_complex() else last[..., 0]


def _parts(x: Inexact[Tensor, "*B D N"]) -> Float[Tensor, "*B D N P"]:
    """The real part and the imaginary one, where there is one."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x[..., None]


def _grouped(x: Float[Tensor, "*B D N P"]) -> Float[Tensor, "*B G N P L"]:
    """Features by groups of as many as there are lanes. A lane without a feature computes NaN, which nobody reads."""
    return native.full(x, -3).unflatten(-3, (-1, native.LANES)).movedim(-3, -1).contiguous()


def _fields(inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `Liquid` of the C source."""
    x, weights, first, reset, valid = inputs
    sizes = (*x.shape, *first.shape[2:4], torch.get_num_threads())
    return *native.rows(native.lines(x)), reset, valid, weights, first, *sizes


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    x, _, first, *_ = inputs
    outputs = native.fresh(x), native.fresh(first)
    windows = -(-x.shape[1] // native.WINDOW)
    # the states that the backward needs
    return (*outputs, first.new_empty((*first.shape[:2], windows, *first.shape[2:]))) if keep else outputs


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, last, *kept = outputs
    native.call("liquid", "forward", *_fields(inputs), last, read, kept[0] if kept else None)


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, kept = saved
    x, weights, first, *_ = inputs
    read_grad, last_grad = grads
    first_grad, x_grad = native.owned(last_grad, first), native.fresh(x)
    weights_grad = first.new_empty((len(x), *weights.shape))
    native.call(
        "liquid", "backward", *_fields(inputs), kept, native.given(read_grad, x), first_grad, x_grad, weights_grad
    )
    return x_grad, weights_grad.sum(0), first_grad, None, None


native.KERNELS["liquid"] = Kernel(_fresh, _forward, _backward)
