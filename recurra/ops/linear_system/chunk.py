r"""`LinearSystem` by blocks of C steps: inside a block a convolution, from block to block a `Block` recurrence.

The kernel :math:`C A^i b`, what is read of the states before a block, :math:`C A^{i+1}`, and what an input leaves at
its end, :math:`A^{C-1-j} b`, are powers applied to vectors, made by doubling: log C squarings of A. So a step costs
M C + (M + 1) N + N^2 / C products for every feature, all inside matrix products, and states exist once a block.
Nothing is as long as the sequence, so no kernel is tied to a length. Resets split a block into its sequences, one
product each.
"""

import functools
from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.ops.block import Block, chunk as block_chunk
from recurra.ops.linear_system import LinearSystem, loop
from recurra.shapes import Bool, Float, Int, Tensor

LENGTH = 64  # steps in a block, at most


def declines(record: LinearSystem, state: Tensor) -> str | None:
    """A single step has nothing to cut; steps that did not happen must come last."""
    return refuses(record.x, record.valid)


def refuses(x: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"] | None) -> str | None:
    """Why blocks cannot be made of these steps."""
    if x.shape[1] == 1:
        return "a single step"
    if valid is not None and bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        return "steps that did not happen lie before steps that did: align them first (Clock.aligned)"
    return None


def scan(
    record: LinearSystem, state: Float[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D M"], Float[Tensor, "B D N"]]:
    x, valid, steps = record.x, record.valid, record.x.shape[1]
    size = min(LENGTH, 1 << (steps - 1).bit_length())
    blocks = -(-steps // size)
    kernels = _kernels(record, size)

    def fold(x: Tensor) -> Tensor:
        return F.pad(x, (0,) * (2 * (x.ndim - 2)) + (0, blocks * size - steps)).unflatten(1, (blocks, size))

    inputs = fold(x).permute(3, 2, 0, 1)
    resets = None if record.reset is None else fold(record.reset)
    begun = None if resets is None else resets.cumsum(2).permute(2, 0, 1)

    written = inputs if begun is None else inputs.masked_fill(begun != begun[-1], 0)
    drive = torch.einsum("dcn,dcbq->bqdn", kernels.write, written)
    ends, _ = block_chunk.scan(Block(kernels.across, drive, None if begun is None else begun[-1] > 0), state)
    ends = torch.cat([state[:, None], ends], 1)

    recalled = (kernels.recall @ ends[:, :-1].permute(2, 3, 0, 1).flatten(2)).unflatten(2, inputs.shape[2:])
    recalled = recalled.unflatten(1, (size, -1))
    if begun is not None:
        recalled = recalled.masked_fill(begun[:, None] > 0, 0)
    read = _within(kernels.pairs, inputs, begun) + recalled
    read = read.permute(3, 4, 1, 0, 2).flatten(1, 2)[:, :steps]
    if valid is not None:
        read = read.masked_fill(~valid[..., None, None], 0)

    # what is left of a block that a row ends inside of, step by step
    counts = torch.full((len(x),), steps, device=x.device) if valid is None else valid.sum(1)
    rows, whole, rest = torch.arange(len(x), device=x.device), counts // size, counts % size
    state, most = ends[rows, whole], int(rest.max())
    if most == 0:
        return read, state
    block = whole.clamp(max=blocks - 1)
    left = LinearSystem(
        fold(x)[rows, block, :most],
        *(part.to(x.dtype) for part in (record.matrix, record.write, record.read)),
        reset=None if resets is None else resets[rows, block, :most],
        valid=torch.arange(most, device=x.device) < rest[:, None],
    )
    return read, loop.scan(left, state)[1]


class _Kernels(NamedTuple):
    """What the steps of a block are to each other and to the states around it."""

    pairs: Float[Tensor, "D CM C"]  # what is read at i of input j
    recall: Float[Tensor, "D CM N"]  # what is read at i of the states before the block
    write: Float[Tensor, "D C N"]  # what is left of input j at the end of the block
    across: Float[Tensor, "D N N"]  # what is left of the states before the block at its end


def _kernels(record: LinearSystem, size: int) -> _Kernels:
    """Powers are taken in float64: slow decays keep their digits over a whole block."""
    kind = record.x.dtype
    matrix, write, read = (x.double() for x in (record.matrix, record.write, record.read))
    squares = [matrix]
    while 1 << (len(squares) - 1) < size:
        squares.append(squares[-1] @ squares[-1])
    rows = _powers(read, squares[:-1])
    columns = _powers(write[:, None], [square.mT for square in squares[:-1]])
    kernel = (rows @ write[..., None]).unflatten(1, (size, -1))[..., 0]
    index = torch.arange(size, device=matrix.device)
    index = index[:, None] - index
    pairs = kernel[:, index.clamp(min=0)].masked_fill((index < 0)[..., None], 0)
    kernels = (pairs.transpose(2, 3).flatten(1, 2), rows @ matrix, columns.flip(1), squares[-1])
    return _Kernels(*(x.to(kind) for x in kernels))


def _powers(rows: Float[Tensor, "D M N"], squares: list[Float[Tensor, "D N N"]]) -> Float[Tensor, "D CM N"]:
    """The rows times all powers of a matrix below twice the last one given: its first, second, fourth, ..."""
    for square in squares:
        rows = torch.cat([rows, rows @ square], 1)
    return rows


def _within(
    pairs: Float[Tensor, "D CM C"], inputs: Float[Tensor, "D C B Q"], begun: Int[Tensor, "C B Q"] | None
) -> Float[Tensor, "D C M B Q"]:
    """What is read of the same block. A block with resets is its sequences, each by itself."""

    def product(inputs: Tensor) -> Tensor:
        return (pairs @ inputs.flatten(2)).unflatten(2, inputs.shape[2:]).unflatten(1, (inputs.shape[1], -1))

    if begun is None:
        return product(inputs)
    others = [begun != sequence for sequence in range(int(begun.max()) + 1)]
    own = [product(inputs.masked_fill(other, 0)).masked_fill(other[:, None], 0) for other in others]
    return functools.reduce(torch.add, own)
