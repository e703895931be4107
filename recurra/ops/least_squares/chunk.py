"""`LeastSquares` by conjugate gradients whose products are the chunk form of `Outer`."""

from recurra.ops.least_squares import LeastSquares, conjugate
from recurra.ops.outer import chunk as outer_chunk
from recurra.shapes import Float, Tensor


def declines(record: LeastSquares, state: Tensor) -> str | None:
    """A single step is solved directly."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(
    record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    return conjugate.scan(outer_chunk, record, state)
