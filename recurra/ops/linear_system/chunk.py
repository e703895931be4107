r"""`LinearSystem` by blocks of C steps: inside a block a convolution, from block to block a `Block` recurrence.

The kernel :math:`C A^i b`, what is read of the states before a block, :math:`C A^{i+1}`, and what an input leaves at
its end, :math:`A^{C-1-j} b`, are powers applied to vectors, made by doubling: log C squarings of A. So a step costs
M C + (M + 1) N + N^2 / C products for every feature, all inside matrix products, and states exist once a block.
Nothing is as long as the sequence, so no kernel is tied to a length. Resets split a block into its sequences, one
product each. Features come first, so that a feature's products are one matrix product.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd import Function
from torch.nn import functional as F

from recurra.ops.linear_system import LinearSystem, loop
from recurra.ops.once import once_differentiable
from recurra.ops.steps import gaps
from recurra.ops.turn import turned
from recurra.shapes import Bool, Float, Int, Tensor

# steps in a block, at most: twice as many would cost every matrix one squaring more, forward and back
LENGTH = 32


def declines(record: LinearSystem, state: Tensor) -> str | None:
    """A single step has nothing to cut; steps that did not happen must come last."""
    return "a single step" if record.x.shape[1] == 1 else gaps(record.valid)


def scan(
    record: LinearSystem, state: Float[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D M"], Float[Tensor, "B D N"]]:
    x, valid, (rows, steps) = record.x, record.valid, record.x.shape[:2]
    size = min(LENGTH, 1 << (steps - 1).bit_length())
    blocks = -(-steps // size)
    kernels = _kernels(record, size)

    def fold(x: Tensor) -> Tensor:
        padding = blocks * size - steps
        x = F.pad(x, (0,) * (2 * (x.ndim - 2)) + (0, padding)) if padding else x
        return x.unflatten(1, (blocks, size))

    folded, resets = fold(x), None if record.reset is None else fold(record.reset)
    inputs = turned(folded.flatten(0, 2)).unflatten(1, (rows, blocks, size))
    begun = None if resets is None else resets.cumsum(2)
    ends = _ends(kernels, inputs, begun, state.transpose(0, 1).contiguous())
    read = _read(kernels, inputs, ends[:, :, :-1], begun)
    read = turned(read.flatten(1)).unflatten(0, (rows, blocks * size, -1)).transpose(2, 3)[:, :steps]
    ends = ends.permute(1, 2, 0, 3)
    if valid is not None:
        read = read.masked_fill(~valid[..., None, None], 0)
    elif blocks * size == steps:
        return read, ends[:, -1]

    # what is left of a block that a row ends inside of, step by step
    counts = torch.full((rows,), steps, device=x.device) if valid is None else valid.sum(1)
    row, whole, rest = torch.arange(rows, device=x.device), counts // size, counts % size
    state, most = ends[row, whole], int(rest.max())
    if most == 0:
        return read, state
    block = whole.clamp(max=blocks - 1)
    left = LinearSystem(
        folded[row, block, :most],
        *(part.to(x.dtype) for part in (record.matrix, record.write, record.read)),
        reset=None if resets is None else resets[row, block, :most],
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
    taps, recall, write, across = _Powers.apply(record.matrix, record.write, record.read, size, record.x.dtype)
    # row i holds k_i, ..., k_0, 0, ...: windows over the kernel backwards, from the last to the first
    pairs = F.pad(taps.flip(1), (0, 0, 0, size - 1)).unfold(1, size, 1).flip(1)
    return _Kernels(pairs.flatten(1, 2), recall, write.flip(1), across)


class _Powers(Function):
    """The kernel, D C M; the weights of the read times A's powers 1 to C, D CM N; A's powers times b, D C N; A^C.

    Powers are taken in float64: slow decays keep their digits over a whole block. Their gradients are sums like any
    others, and run in the type of the inputs.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, write: Tensor, read: Tensor, size: int, kind: torch.dtype) -> Any:
        ctx.kinds = matrix.dtype, write.dtype, read.dtype
        matrix, write, rows = matrix.double(), write.double(), read.double()
        squares, columns = [matrix], write[:, None]
        for _ in range(size.bit_length() - 1):
            square = squares[-1]
            rows = torch.cat([rows, rows @ square], 1)
            columns = torch.cat([columns, columns @ square.mT], 1)
            squares.append(square @ square)
        taps = (rows @ write[..., None]).unflatten(1, (size, -1))[..., 0]
        recall, across = rows @ matrix, squares.pop()
        rows, columns, across, *squares = (x.to(kind) for x in (rows, columns, across, *squares))
        ctx.save_for_backward(rows, columns, *squares)
        return taps.to(kind), recall.to(kind), columns.clone(), across

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, columns, *squares = ctx.saved_tensors
        taps, recall, column, square = grad_outputs
        matrix, write, taps = squares[0], columns[:, :1], taps.flatten(1)[..., None]
        row = torch.baddbmm(recall @ matrix.mT, taps, write)
        matrix_grad, write_grad = rows.mT @ recall, (rows.mT @ taps)[..., 0]
        for power in reversed(squares):
            many, few = row.shape[1] // 2, column.shape[1] // 2
            square = (power.mT @ square).baddbmm_(square, power.mT)
            square = square.baddbmm_(rows[:, :many].mT, row[:, many:])
            square = square.baddbmm_(column[:, few:].mT, columns[:, :few])
            row = torch.baddbmm(row[:, :many], row[:, many:], power.mT)
            column = torch.baddbmm(column[:, :few], column[:, few:], power)
        grads = square + matrix_grad, column[:, 0] + write_grad, row
        return *(grad.to(kind) for grad, kind in zip(grads, ctx.kinds, strict=True)), None, None


def _ends(
    kernels: _Kernels,
    inputs: Float[Tensor, "D B Q C"],
    begun: Int[Tensor, "B Q C"] | None,
    state: Float[Tensor, "D B N"],
) -> Float[Tensor, "D B Q_and_1 N"]:
    """The states before every block, and after the last."""
    written = inputs if begun is None else inputs.masked_fill(begun != begun[..., -1:], 0)
    drive = (written.flatten(1, 2) @ kernels.write).unflatten(1, inputs.shape[1:3])
    return _Carry.apply(kernels.across, drive, state, None if begun is None else begun[..., -1] > 0)


class _Carry(Function):
    """The states from block to block. The gradient runs back over them once, and meets the matrix in one product."""

    @staticmethod
    def forward(ctx: Any, across: Tensor, drive: Tensor, state: Tensor, reset: Bool[Tensor, "B Q"] | None) -> Tensor:
        ends = [state]
        for block, part in enumerate(drive.unbind(2)):
            ends.append(torch.baddbmm(part, _kept(ends[-1], reset, block), across.mT))
        ends = torch.stack(ends, 2)
        ctx.save_for_backward(across, ends, reset)
        return ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        across, ends, reset = ctx.saved_tensors
        *parts, last = grad_outputs[0].unbind(2)
        flow = [last]
        for block, part in reversed(list(enumerate(parts))):
            flow.append(part + _kept(flow[-1] @ across, reset, block))
        first, later = flow.pop(), torch.stack(flow[::-1], 2)
        before = ends[:, :, :-1] if reset is None else ends[:, :, :-1].masked_fill(reset[..., None], 0)
        return later.flatten(1, 2).mT @ before.flatten(1, 2), later, first, None


def _kept(state: Float[Tensor, "D B N"], reset: Bool[Tensor, "B Q"] | None, block: int) -> Float[Tensor, "D B N"]:
    """What a block takes over from before it, or hands back to there."""
    return state if reset is None else state.masked_fill(reset[:, block, None], 0)


def _read(
    kernels: _Kernels,
    inputs: Float[Tensor, "D B Q C"],
    before: Float[Tensor, "D B Q N"],
    begun: Int[Tensor, "B Q C"] | None,
) -> Float[Tensor, "D B Q CM"]:
    """What is read of the same block and of the states before it. A block with resets is its sequences, each alone."""
    pairs, places = kernels.pairs.mT, inputs.shape[1:3]
    recalled = before.flatten(1, 2) @ kernels.recall.mT
    if begun is None:
        return torch.baddbmm(recalled, inputs.flatten(1, 2), pairs).unflatten(1, places)
    # a step is read M times
    segment = begun.repeat_interleave(recalled.shape[-1] // inputs.shape[-1], 2)
    read = recalled.unflatten(1, places).masked_fill(segment > 0, 0)
    for sequence in range(int(begun.max()) + 1):
        own = (inputs.masked_fill(begun != sequence, 0).flatten(1, 2) @ pairs).unflatten(1, places)
        read = torch.where(segment != sequence, read, read + own)
    return read
