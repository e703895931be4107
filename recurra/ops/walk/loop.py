"""The definition of `Walk`: the function as it is written, run by torch for one segment after the other."""

import torch

from recurra.ops.walk import Walk
from recurra.shapes import Bool, State, Tensor
from recurra.state import each, leaves


def declines(record: Walk, state: State) -> str | None:
    """Never: this is the definition the other is measured against."""
    return None


def scan(record: Walk, state: State) -> tuple[tuple[State, State], State]:
    """The memory before every segment and what every segment made, each `(B, S, ...)`; and the memory after all."""
    before, made = [], []
    # taken apart at once: going back, one segment of all of them would be a sum over arrays of the size of all
    parts = [x.unbind(1) for x in leaves(record.ready)]
    for number in range(record.full.shape[1]):
        if record.fresh is not None:
            state = choose(record.fresh[:, number], record.start, state)
        before.append(state)
        full = record.full[:, number]
        if not record.way.makes and not bool(full.any()):
            continue
        turn = iter([x[number] for x in parts])
        after, new = record.way.function(state, each(lambda _, turn=turn: next(turn), record.ready))
        made.append(new)
        state = after if bool(full.all()) else choose(full, after, state)
    return (_beside(before), _beside(made) if record.way.makes else ()), state


def choose(which: Bool[Tensor, " B"], one: State, other: State) -> State:
    """Each row of a state from `one` where `which`, else from `other`."""
    return each(lambda x, y: torch.where(which.reshape(-1, *(1,) * (y.ndim - 1)), x.to(y), y), one, other)


def _beside(states: list[State]) -> State:
    """The states of segments as one."""
    return each(lambda *parts: torch.stack(parts, 1), *states)
