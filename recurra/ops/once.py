"""Gradients that have no gradient of their own, and say so to whoever asks for one.

Torch's own decorator puts its refusal at the end of a branch that leads nowhere: `torch.autograd.grad` of a gradient,
which goes only where its inputs are, passes it by and returns what the other branches give, which is wrong.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function

from recurra.shapes import Tensor


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A Function's `backward` whose results refuse to be differentiated by what they were made of."""

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Tensor | None) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        read = _Read(ctx)
        with torch.no_grad():
            found = backward(read, *grads)
        known = [x for x in (*grads, *read.saved_tensors) if x is not None and x.requires_grad]
        several = found if isinstance(found, tuple) else (found,)
        made = iter(_Refusal.apply(len(known), *known, *(x for x in several if x is not None)))
        several = tuple(None if x is None else next(made) for x in several)
        return several if isinstance(found, tuple) else several[0]

    return once


class _Read:
    """A context whose saved tensors are read once: a checkpoint hands each out a single time."""

    def __init__(self, ctx: Any) -> None:
        self._ctx, self.saved_tensors = ctx, ctx.saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


class _Refusal(Function):
    """The same numbers, as a function of what they were made of."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[count:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(
            "trying to differentiate twice what is once_differentiable: second derivatives are taken of the loop alone "
            '(recurra.use("loop"))'
        )
