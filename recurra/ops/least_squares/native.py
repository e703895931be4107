"""`LeastSquares` in C: a Cholesky factor for every step, sixteen of them side by side, and `Outer`'s kernel.

Costs K^3 / 3 products a step, as `loop` does, in vectors that run along time: no step waits for the one before.
"""

import torch

from recurra.ops import native
from recurra.ops.least_squares import LeastSquares
from recurra.ops.least_squares.implicit import Map, scan as solve
from recurra.ops.outer import native as outer_native
from recurra.shapes import Float, Tensor


def declines(record: LeastSquares, state: Tensor) -> str | None:
    """What no kernel takes."""
    tensors = (*record[:6], state)
    return native.declines("outer", *tensors) or native.declines("least_squares", *tensors)


def scan(
    record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    return solve(outer_native, _inverse, record, state)


def _inverse(record: LeastSquares, gram: Float[Tensor, "B H K K"], product: Map) -> Map:
    _, key, _, write, ridge, log_decay, reset = record
    tensors = [None if x is None else x.detach() for x in (key, write, log_decay)]
    gram, ridge, reset = native.dense(gram.detach()), native.dense(ridge.detach()), native.mask(reset)

    def inverse(right: Tensor) -> Tensor:
        solution = native.fresh(right)
        fields = [field for x in (right, *tensors) for field in native.typed(x)]
        sizes = (*right.shape, int(log_decay is not None))
        native.call("least_squares", "solve", *fields, reset, gram, ridge, *sizes, solution, torch.get_num_threads())
        return solution

    return inverse
