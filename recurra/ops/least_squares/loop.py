"""The definition of `LeastSquares`: one step at a time, each with a Cholesky factor of its own, of K^3 / 3 products."""

from collections.abc import Iterator

import torch

from recurra.ops.least_squares import LeastSquares, halves
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: LeastSquares, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    states = _states(record, torch.cat(halves(state), -1), record.value)
    reads = []
    for query, state in zip(record.query.unbind(1), states, strict=True):
        gram, memory = halves(state)
        solution = _solve(gram, record.ridge, query)
        reads.append((solution[..., None] * memory).sum(-2))
    return torch.stack(reads, 1), torch.cat(halves(state), -1)


def solve(
    record: LeastSquares, gram: Float[Tensor, "B H K K"], right: Float[Tensor, "B T H K"]
) -> Float[Tensor, "B T H K"]:
    """The inverse of every step's regularised G, of which `gram` is the first, times `right`."""
    grams = _states(record, gram, None)
    return torch.stack([_solve(g, record.ridge, x) for x, g in zip(right.unbind(1), grams, strict=True)], 1)


def _states(record: LeastSquares, state: Tensor, value: Tensor | None) -> Iterator[Tensor]:
    """G, and S beside it where there are values, after every step."""
    both = record.key if value is None else torch.cat([record.key, value], -1)
    written = record.write[..., None] * record.key
    steps = record.key.shape[1]
    decays = by_step(record.log_decay, steps)
    resets = by_step(record.reset, steps)
    for key, new, log_decay, begins in zip(written.unbind(1), both.unbind(1), decays, resets, strict=True):
        if begins is not None:
            state = restart(begins, state)
        if log_decay is not None:
            state = log_decay.exp()[..., None, None] * state
        state = state + key[..., None] * new[..., None, :]
        yield state


def _solve(
    gram: Float[Tensor, "B H K K"], ridge: Float[Tensor, "H K"], right: Float[Tensor, "B H K"]
) -> Float[Tensor, "B H K"]:
    # a ruined row gives NaN, as every other engine's does, and leaves the factors and gradients of the others alone
    whole = gram.isfinite().all(-1).all(-1)[..., None]
    gram = torch.where(whole[..., None], gram, 0) + torch.diag_embed(ridge)
    solution = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(gram))[..., 0]
    return torch.where(whole, solution, torch.nan)
