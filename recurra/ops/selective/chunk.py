"""`Selective` as a `Diag` whose features are (D, N), a block of time after another.

The (B, T, D, N) coefficients never exist for all T: each block makes its own, sums its read over N and forgets them;
the backward makes them again. So memory is that of the inputs, one state a block and one block's coefficients, for
one more forward.
"""

import torch
from torch.utils.checkpoint import checkpoint

from recurra.ops.diag import Diag, chunk as diag_chunk
from recurra.ops.selective import Selective
from recurra.shapes import Float, Tensor

BLOCK = 256  # steps whose coefficients exist at once


def declines(record: Selective, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.x.shape[1] == 1 else None


def scan(record: Selective, state: Float[Tensor, "B D N"]) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    x, step, rate, write, query, reset = record
    resets = [None] * -(-x.shape[1] // BLOCK) if reset is None else reset.split(BLOCK, 1)
    reads = []
    for *inputs, begins in zip(*(part.split(BLOCK, 1) for part in (x, step, write, query)), resets, strict=True):
        read, state = checkpoint(_block, rate, *inputs, begins, state, use_reentrant=False, preserve_rng_state=False)
        reads.append(read)
    return torch.cat(reads, 1), state


def _block(
    rate: Tensor, x: Tensor, step: Tensor, write: Tensor, query: Tensor, reset: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    decay = (step[..., None] * rate).exp()
    drive = (step * x)[..., None] * write[:, :, None]
    states, state = diag_chunk.scan(Diag(decay, drive, reset=reset), state)
    return (states @ query[..., None]).squeeze(-1), state
