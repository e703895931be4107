"""A source and its answer as one row: `source go answer`. So a pair is a sequence as any other, and can be streamed.

The token `go` begins the answer. What a model says at `go` is the answer's first token, and so on: in training the
answer's own tokens are read (teacher forcing), in use those that were chosen.
"""

import itertools
from collections.abc import Callable

import torch

from recurra.clock import Clock
from recurra.shapes import Bool, Int, State, Tensor
from recurra.state import each


def happened(x: Tensor, clock: Clock | None) -> Bool[Tensor, "B T"]:
    """The steps of x, `(B, T)` or with features, that happened."""
    if clock is None or clock.valid is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return clock.valid


def phases(
    tokens: Int[Tensor, "B T"], go: int, answering: Bool[Tensor, "B 1"], clock: Clock | None
) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, "B T"], Bool[Tensor, "B 1"]]:
    """Which steps are of the source, which of the answer, and which rows are answering after them.

    Args:
        answering: the rows that had come to their answer before these steps.
        clock: of these steps; without resets.
    """
    live = happened(tokens, clock)
    began = (((tokens == go) & live).cumsum(1) > 0) | answering
    return live & ~began, live & began, began[:, -1:]


def between_resets(
    run: Callable[[Tensor, State, Clock | None], tuple[Tensor, State]],
    x: Tensor,
    state: State,
    initial: State,
    clock: Clock | None,
) -> tuple[Tensor, State]:
    """`run(x, state, clock)` over the pieces between resets, where rows that begin anew have their initial state.

    The outputs of the pieces, one after another, and the last state.
    """
    if clock is None or clock.reset is None:
        return run(x, state, clock)
    begins = clock.reset if clock.valid is None else clock.reset & clock.valid
    places = {0, x.shape[1], *begins.any(0).nonzero()[:, 0].tolist()}
    cuts, outputs = sorted(places), []
    for start, stop in itertools.pairwise(cuts):
        anew = begins[:, start]
        state = each(lambda old, new, anew=anew: torch.where(_like(anew, old), new, old), state, initial)
        piece = clock.cut(start, stop)
        y, state = run(x[:, start:stop], state, Clock(None, piece.valid, piece.dt) or None)
        outputs.append(y)
    return (torch.cat(outputs, 1), state) if outputs else run(x, state, None)


def _like(anew: Bool[Tensor, " B"], x: Tensor) -> Tensor:
    return anew.reshape(-1, *[1] * (x.ndim - 1))
