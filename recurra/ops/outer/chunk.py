"""`Outer` by chunks: a masked matrix product inside a chunk, one update of the memory from chunk to chunk.

The cost is C K + C V + 2 K V multiplications a step and head, nearly all in matrix products, where the loop's 3 K V are
elementwise passes over the memory.
"""

import torch

from recurra.ops.chunks import cut, left, products, recall, spans
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor

CHUNK = 64  # steps, where a head decays as one


def declines(record: Outer, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    query, key, value, log_decay, before, bonus, reset = record
    reads = []
    for g, begins, q, k, v in cut(CHUNK, log_decay, reset, query, key, value):
        span = spans(g)
        after = left(g, span, begins, False)
        at = left(g, span, begins, True) if before else after
        read = products(q, k, at.pairs) @ v + recall(q * at.start, state, at.alive)
        if bonus is not None:
            read = read + (q * bonus[:, None] * k).sum(-1, keepdim=True) * v
        reads.append(read.transpose(1, 2))
        # what is left of the state and of every write at the chunk's end
        if after.alive is not None:
            state = state.masked_fill(~after.alive[:, :, -1:], 0)
        state = after.start[:, :, -1, :, None] * state + (k * after.pairs[:, :, -1]).mT @ v
    return torch.cat(reads, 1), state
