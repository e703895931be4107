"""`Liquid` as a `Diag` whose features are (D, N), a block of time after another.

The (B, T, D, N) coefficients never exist for all T: each block makes its own, sums its read over N and forgets them;
the backward makes them again.
"""

import torch
from torch.utils.checkpoint import checkpoint

from recurra.ops.diag import Diag, chunk as diag_chunk
from recurra.ops.liquid import Liquid
from recurra.shapes import Float, Inexact, Tensor

BLOCK = 256  # steps whose N states a feature exist at once


def declines(record: Liquid, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.x.shape[1] == 1 else None


def scan(record: Liquid, state: Inexact[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    steps, reads = range(0, record.x.shape[1], BLOCK), []
    for start in steps:
        x, reset, valid = (
            None if part is None else part[:, start : start + BLOCK] for part in (record.x, record.reset, record.valid)
        )
        inputs = record._replace(x=x, reset=reset, valid=valid)
        read, state = checkpoint(_block, *inputs, state, use_reentrant=False, preserve_rng_state=False)
        reads.append(read)
    return torch.cat(reads, 1), state


def _block(
    x: Tensor,
    decay: Tensor,
    write: Tensor,
    limit: Tensor,
    weight: Tensor,
    reset: Tensor | None,
    valid: Tensor | None,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    x = x[..., None]
    record = Diag(decay + write * (limit * (x / limit).tanh()), write * x, reset=reset)
    states, state = diag_chunk.scan(record if valid is None else record.hold(valid), state)
    read = (states * weight).sum(-1)
    read = read.real if read.is_complex() else read
    return read if valid is None else read.masked_fill(~valid[..., None], 0), state
