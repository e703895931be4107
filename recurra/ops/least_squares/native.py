"""`LeastSquares` by conjugate gradients whose products are the C kernel of `Outer`."""

from recurra.ops import native
from recurra.ops.least_squares import LeastSquares, conjugate
from recurra.ops.outer import native as outer_native
from recurra.shapes import Float, Tensor


def declines(record: LeastSquares, state: Tensor) -> str | None:
    """A single step is solved directly; and what no kernel takes."""
    if record.key.shape[1] == 1:
        return "a single step"
    return native.declines("outer", record.query, record.key, record.value, record.write, record.log_decay, state)


def scan(
    record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    return conjugate.scan(outer_native, record, state)
