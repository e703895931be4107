"""`LeastSquares` in C: a Cholesky factor for every step, sixteen of them side by side, and `Outer`'s kernel.

Costs K^3 / 3 products a step, as `loop` does, in vectors that run along time: no step waits for the one before.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.least_squares import LeastSquares
from recurra.ops.least_squares.implicit import Map, scan as solve
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.outer import native as outer_native
from recurra.shapes import Float, Tensor


def declines(record: LeastSquares, state: Tensor) -> str | None:
    """What no kernel takes."""
    tensors = (*record[:6], state)
    return native.declines("outer", *tensors) or native.declines("least_squares", *tensors)


def scan(
    record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    return solve(outer_native, _inverse, record, state, _sides)


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


def _sides(key: Tensor, value: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    written, both = run("least_squares_sides", 0, key, value, write)
    return written, both


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    key, value, _ = inputs
    return native.fresh(key), key.new_empty((*key.shape[:-1], key.shape[-1] + value.shape[-1]))


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    rows = (field for x in inputs for field in native.rows(native.lines(x)))
    sizes = *inputs[0].shape, inputs[1].shape[-1]
    native.call("least_squares", "sides", *rows, *sizes, *outputs, torch.get_num_threads())


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    key, value, write = saved
    written, both = (native.given(grad, like) for grad, like in zip(grads, _fresh(False, 0, saved), strict=True))
    rows = (field for x in (key, write) for field in native.rows(native.lines(x)))
    found = [native.fresh(x) for x in saved]
    sizes = *key.shape, value.shape[-1]
    native.call("least_squares", "sides_back", *rows, *sizes, written, both, *found, torch.get_num_threads())
    return found


native.KERNELS["least_squares_sides"] = Kernel(_fresh, _forward, _backward)
