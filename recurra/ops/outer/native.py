"""`Outer` in C: forward is the recurrence with S in registers, backward is by chunks of sixteen steps.

Forward costs three operations for each number of S a step and, for gradients, keeps S at every 64th step: backward
runs the states between again. Narrow numbers are widened as they are read, a chunk at a time.
"""

from recurra.ops import native
from recurra.ops.native import matrix
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor


def declines(record: Outer, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("outer", state, narrow=(*record[:4], record.bonus))


def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    query, key, value, log_decay, before, bonus, reset = record
    bonus = bonus.to(state.dtype) if before and bonus is not None else None
    return matrix.scan("outer", (query, key, value), log_decay, state, reset, bonus, before)
