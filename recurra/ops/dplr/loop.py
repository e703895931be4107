"""The definition of `DiagonalPlusLowRank`: one step at a time, the inverse by Sherman and Morrison. Costs N a step."""

import torch

from recurra.ops.dplr import DiagonalPlusLowRank
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Inexact, Tensor


def declines(record: DiagonalPlusLowRank, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: DiagonalPlusLowRank, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    steps = record.x.shape[1]
    lengths = [record.step] * steps if record.step.ndim == 1 else record.step.unbind(1)
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    reads = []
    for x, length, begins, happens in zip(record.x.unbind(1), lengths, resets, valids, strict=True):
        before = state if begins is None else restart(begins, state)
        new = advance(record, length, before, x)
        read = _both(record.read, new)[..., 0]
        if happens is not None:
            new = torch.where(happens[:, None, None], new, state)
            read = read.masked_fill(~happens[:, None], 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), state


def advance(
    record: DiagonalPlusLowRank,
    step: Float[Tensor, "... D"],
    state: Inexact[Tensor, "... D N"],
    x: Float[Tensor, "... D"],
) -> Inexact[Tensor, "... D N"]:
    """The states one step later."""
    half, low = step[..., None] / 2, record.low
    slope = record.diagonal * state - low * _both(low.conj(), state)
    explicit = state + half * slope + 2 * half * record.write * x[..., None]
    inverse = 1 / (1 - half * record.diagonal)
    share = half / (1 + half * _both(low.conj(), inverse * low))
    return inverse * (explicit - low * share * _both(low.conj(), inverse * explicit))


def _both(weight: Inexact[Tensor, "... N"], state: Inexact[Tensor, "... N"]) -> Float[Tensor, "... 1"]:
    """The weighted sum of states and their conjugates."""
    return 2 * (weight * state).sum(-1, keepdim=True).real
