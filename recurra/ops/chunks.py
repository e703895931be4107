r"""What the chunk forms of matrix memories share: how much of a step is left at another step of the same chunk.

Every exponent here is itself a sum of log-decays, made by adding and never by taking one cumulative sum from another.
So a strong decay costs no precision, a decay of exactly zero (log -inf) is allowed, no exponent is positive, and the
gradients are sums of the same kind. Resets are segment ids: pairs of steps with a reset between are masked before
`exp`, and a state that does not reach a step is masked on both sides of the product, so that it may even be NaN.
(A NaN among a chunk's inputs, though, reaches its whole chunk: the products inside are matrix products.)

In the shapes G is K where every key channel decays by itself, and 1 where a head decays as one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from recurra.shapes import Bool, Float, Tensor

PAIRWISE = 16  # steps in a chunk whose pairs have a weight for every channel


class Left(NamedTuple):
    """What is left, between the steps of a chunk, its start and its end. Read i may come before or after write i."""

    pairs: Float[Tensor, "_ h C C G"]  # of write j at read i; zero where j is later than i or a reset lies between
    start: Float[Tensor, "_ h C G"]  # of the state before the chunk at read i
    alive: Bool[Tensor, "B 1 C 1"] | None  # no reset from the chunk's start to read i


def cut(
    most: int, log_decay: Tensor | None, reset: Tensor | None, *inputs: Float[Tensor, "B T H _"]
) -> Iterator[tuple]:
    """Chunks of log_decay `(_, h, C, G)`, reset `(B, C)` or None, and every input `(B, H, C, ...)`, head first.

    They have `most` steps; where every channel decays by itself at most `PAIRWISE`, as pairs cost C C K numbers a head.
    """
    length = min(most, PAIRWISE) if log_decay is not None and log_decay.ndim == 4 else most
    if log_decay is None:
        log_decay = inputs[0].new_zeros(1, inputs[0].shape[1], 1)
    log_decay = log_decay if log_decay.ndim == 4 else log_decay[..., None]
    chunks = [x.transpose(1, 2).split(length, 2) for x in (log_decay, *inputs)]
    resets = [None] * len(chunks[0]) if reset is None else reset.split(length, 1)
    return zip(chunks[0], resets, *chunks[1:], strict=True)


def spans(log_decay: Float[Tensor, "_ h C G"]) -> Float[Tensor, "_ h C C G"]:
    """The sum of the log-decays of steps j + 1 to i, at [i, j]; zero where j is not earlier than i."""
    later = torch.ones(log_decay.shape[2], log_decay.shape[2], dtype=torch.bool, device=log_decay.device).triu()
    return log_decay[:, :, :, None].masked_fill(later[..., None], 0).cumsum(2)


def previous(x: Tensor) -> Tensor:
    """`x` (_, h, C, ...) of the step before; zero at the first."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2)


def left(log_decay: Float[Tensor, "_ h C G"], span: Tensor, reset: Bool[Tensor, "B C"] | None, before: bool) -> Left:
    """What is left at every read: after its own step's decay and write or, with `before`, before both."""
    start = log_decay.cumsum(2)
    if before:
        span, start = previous(span), previous(start)
    steps = span.shape[2]
    seen = torch.ones(steps, steps, dtype=torch.bool, device=span.device).tril(-1 if before else 0)[..., None]
    if reset is None:
        return Left(span.masked_fill(~seen, -torch.inf).exp(), start.exp(), None)
    segment = reset.cumsum(1)
    seen = seen & (segment[:, :, None] == segment[:, None])[:, None, ..., None]
    span = span.expand(len(reset), *span.shape[1:])
    return Left(span.masked_fill(~seen, -torch.inf).exp(), start.exp(), (segment == 0)[:, None, :, None])


def products(
    x: Float[Tensor, "B H C K"], y: Float[Tensor, "B H C K"], pairs: Float[Tensor, "_ h C C G"]
) -> Float[Tensor, "B H C C"]:
    """The sum over channels of x_i y_j and what is left of j at i."""
    if pairs.shape[-1] == 1:
        return x @ y.mT * pairs[..., 0]
    return torch.einsum("bhik,bhijk->bhij", x, pairs * y[:, :, None])


def recall(
    x: Float[Tensor, "B H C K"], state: Float[Tensor, "B H K V"], alive: Bool[Tensor, "B 1 C 1"] | None
) -> Float[Tensor, "B H C V"]:
    """What x reads from the state, where the state is alive; elsewhere zero, in the gradient too."""
    if alive is None:
        return x @ state
    return (x.masked_fill(~alive, 0) @ state).masked_fill(~alive, 0)
