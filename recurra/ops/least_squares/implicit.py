r"""`LeastSquares` by a solver that is asked for all steps at once, whatever it is: its gradient is no part of it.

What reads S is the solution :math:`x_t`, as the query of an ordinary `Outer` memory. The gradient is not taken through
the solver: that of :math:`x = A^{-1} q` is one more solve, :math:`\bar q = A^{-1} \bar x`, and that of A,
:math:`-\bar q x^\top`, the gradient of what `Outer` reads of keys by keys.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops.least_squares import LeastSquares, halves
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor

Map = Callable[[Tensor], Tensor]
# of a record, its first G, and A of all steps: the inverse of A
Solver = Callable[[LeastSquares, Tensor, Map], Map]


def scan(
    engine: ModuleType, solver: Solver, record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    """`engine` is the implementation of `Outer` that makes the products."""
    query, key, value, write, ridge, log_decay, reset = record
    gram, memory = halves(state)
    key = key.contiguous()
    written = write[..., None] * key

    def product(x: Tensor) -> Tensor:
        """A x, of all steps."""
        read, _ = engine.scan(Outer(x, written, key, log_decay, reset=reset), gram)
        return read + ridge * x

    inverse = solver(record, gram, product)
    with torch.no_grad():
        solution = inverse(query)
    if torch.is_grad_enabled():
        solution = _Solution.apply(query - product(solution), solution, inverse)
    both = torch.cat([key, value], -1)
    read, state = engine.scan(Outer(solution, written, both, log_decay, reset=reset), torch.cat([gram, memory], -1))
    # rounding may differ across the diagonal
    return read[..., key.shape[-1] :], torch.cat(halves(state), -1)


class _Solution(Function):
    """The solution, as a function of the residual that is left of it, which is zero and has a gradient."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, solution: Tensor, inverse: Map) -> Tensor:
        ctx.inverse = inverse
        return solution.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.inverse(grad_outputs[0]), None, None
