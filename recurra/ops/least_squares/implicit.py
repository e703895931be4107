r"""`LeastSquares` by a solver that is asked for all steps at once, whatever it is: its gradient is no part of it.

What reads S is the solution :math:`x_t` of :math:`A x = q`, as the query of an ordinary `Outer` memory, which holds G
beside S. The gradient is not taken through the solver: of what is read, :math:`\bar o`, the solution's is
:math:`\bar x = S \bar o`, what the same memory with keys and values exchanged reads by it; that of q is one more solve,
:math:`\bar q = A^{-1} \bar x`; and that of A, :math:`-\bar q x^\top`, is the gradient of reading G by x where what was
read has :math:`-\bar q`. So both memories go back in one pass, with x a constant.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.autograd import Function

from recurra.ops.least_squares import LeastSquares, halves
from recurra.ops.once import once_differentiable
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor

Map = Callable[[Tensor], Tensor]
# of a record, its first G, and A of all steps: the inverse of A
Solver = Callable[[LeastSquares, Tensor, Map], Map]


def sides(
    key: Float[Tensor, "B T H K"], value: Float[Tensor, "B T H V"], write: Float[Tensor, "B T H"]
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T H W"]]:
    """What writes G and S side by side: keys as they are written, and what they write, keys and values."""
    return write[..., None] * key, torch.cat([key, value], -1)


def scan(
    engine: ModuleType,
    solver: Solver,
    record: LeastSquares,
    state: Float[Tensor, "B H K W"],
    sides: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = sides,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    """`engine` is the implementation of `Outer` that makes the products; `sides` is as above."""
    query, key, value, write, ridge, log_decay, reset = record
    gram, memory = halves(state)
    written, both = sides(key, value, write)

    def product(x: Tensor) -> Tensor:
        """A x, of all steps."""
        read, _ = engine.scan(Outer(x, written, key, log_decay, reset=reset), gram)
        return read + ridge * x

    def back(grad: Tensor) -> Tensor:
        """S times what has the values' features, of all steps."""
        read, _ = engine.scan(Outer(grad, value, written, log_decay, reset=reset), memory.mT)
        return read

    inverse = solver(record, gram, product)
    with torch.no_grad():
        solution = inverse(query)
    read, state = engine.scan(Outer(solution, written, both, log_decay, reset=reset), torch.cat([gram, memory], -1))
    # rounding may differ across the diagonal
    return _Answer.apply(read, query, ridge, solution, inverse, back), torch.cat(halves(state), -1)


class _Answer(Function):
    """What a solution read of S, from what it read of G and of S: a function of the query and the ridge too."""

    @staticmethod
    def forward(
        ctx: Any, read: Tensor, query: Tensor, ridge: Tensor, solution: Tensor, inverse: Map, back: Map
    ) -> Tensor:
        ctx.save_for_backward(solution)
        ctx.inverse, ctx.back = inverse, back
        # no view, which could not be changed in place, and would keep twice as much
        return read[..., query.shape[-1] :].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (solution,) = ctx.saved_tensors
        (grad,) = grad_outputs
        query_grad = ctx.inverse(ctx.back(grad))
        size = solution.shape[-1]
        read_grad = grad.new_empty((*grad.shape[:-1], size + grad.shape[-1]))
        torch.neg(query_grad, out=read_grad[..., :size])
        read_grad[..., size:] = grad
        ridge_grad = -(query_grad * solution).sum((0, 1)) if ctx.needs_input_grad[2] else None
        return read_grad, query_grad, ridge_grad, None, None, None
