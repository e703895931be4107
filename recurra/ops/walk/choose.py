"""The door of `Walk`: in C where that takes it, else by the loop."""

from recurra.ops.scan import compiled
from recurra.ops.walk import Walk, loop, native
from recurra.shapes import State
from recurra.state import each


def walk(record: Walk, state: State) -> tuple[tuple[State, State], State]:
    """The memory before every segment and what every segment made, each `(B, S, ...)`; and the memory after all.

    Args:
        record: the segments.
        state: the memory before the first, each tensor `(B, ...)`.
    """
    segments = record.full.shape[1]
    if record.fresh is None and not record.way.makes and not bool(record.full.any()):
        # nothing comes of it, which is most steps
        return (each(lambda x: x[:, None].expand(-1, segments, *x.shape[1:]), state), ()), state
    return (native if compiled(native, record, state) else loop).scan(record, state)
