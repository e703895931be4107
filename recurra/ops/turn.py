"""A matrix transposed in memory, and its gradient too.

Many small products in one call are several times slower where a transposed view comes in, and autograd makes one of
every transposed matrix that goes out.
"""

from typing import Any

import torch
from torch.autograd import Function

from recurra.shapes import Float, Tensor


def turned(x: Float[Tensor, "X Y"]) -> Float[Tensor, "Y X"]:
    """The transpose, without gaps."""
    return _Turned.apply(x) if torch.is_grad_enabled() and x.requires_grad else x.t().contiguous()


class _Turned(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.t().contiguous()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad_outputs[0].t().contiguous()
