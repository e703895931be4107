"""`Address` by chunks: products of queries and keys inside a chunk, one update of the memory from chunk to chunk.

The cost is C V + 2 C K + 2 K V multiplications a step and head, and C C K numbers a head that exist at once.
"""

import torch

from recurra.ops.address import Address
from recurra.ops.chunks import PAIRWISE, cut, left, recall, spans
from recurra.shapes import Float, Tensor


def declines(record: Address, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(record: Address, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B H K V"]]:
    query, key, write, log_decay, reset = record
    reads = []
    for g, begins, q, k, w in cut(PAIRWISE, log_decay, reset, query, key, write):
        after = left(g, spans(g), begins, False)
        read = torch.einsum("bhij,bhjk,bhijk->bhik", q @ k.mT, w, after.pairs)
        read = read + after.start * recall(q, state.mT, after.alive)
        reads.append(read.transpose(1, 2))
        if after.alive is not None:
            state = state.masked_fill(~after.alive[:, :, -1:], 0)
        state = after.start[:, :, -1, :, None] * state + (w * after.pairs[:, :, -1]).mT @ k
    return torch.cat(reads, 1), state
