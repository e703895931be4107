"""`Delta` and `LowRank` in C: forward is the recurrence in one pass over S a step, backward is by chunks of 16 steps.

Forward costs four operations (`LowRank` five) for each number of S a step and, for gradients, keeps S at every 64th
step: backward (the UT form: a triangular solve gives a chunk's writes at once) runs the states between again. Narrow
numbers are widened as they are read, a chunk at a time.
"""

from recurra.ops import native
from recurra.ops.delta import Delta, LowRank
from recurra.ops.native import matrix
from recurra.shapes import Float, Tensor

KERNELS = {Delta: "delta", LowRank: "low_rank"}


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines(KERNELS[type(record)], state, narrow=record[:-1])


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    *tensors, log_decay, reset = record
    return matrix.scan(KERNELS[type(record)], tensors, log_decay, state, reset)
