r"""`StateSpace` by blocks of C steps: inside a block a convolution, from block to block the recurrence.

The steps of a block reach each other through the kernel :math:`k_i = \operatorname{Re} \sum_n c_n e^{i a_n}`, laid out
as a C by C matrix; a block's inputs make its last states through a Vandermonde matrix, and the states before it are
read through another. So a step costs C + 4 N products for every feature, all of them inside matrix products, and
states exist once a block: B T D N / C numbers. Nothing is as long as the sequence, so no power is higher than C and
no kernel is tied to a length. Resets split a block into its sequences, one product for each.

Features come first, so that a feature's products are one matrix product; a complex number is a pair side by side, as
it lies in memory, so that nothing is copied between the two.
"""

from typing import Any, NamedTuple

import torch
from torch.autograd import Function
from torch.nn import functional as F

from recurra.ops.once import once_differentiable
from recurra.ops.state_space import StateSpace
from recurra.ops.steps import by_step, gaps
from recurra.ops.turn import turned
from recurra.shapes import Bool, Float, Inexact, Int, Tensor, wide, widen

LENGTH = 64  # steps in a block


def declines(record: StateSpace, state: Tensor) -> str | None:
    """A single step has nothing to cut; steps that did not happen must come last."""
    if record.x.shape[1] == 1:
        return "a single step"
    if len({x.is_complex() for x in (record.log_decay, record.read, state)}) > 1:
        return "decay, read and state must be all real or all complex"
    return gaps(record.valid)


def scan(
    record: StateSpace, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    x, valid = record.x, record.valid
    rows, steps = x.shape[:2]
    size = min(LENGTH, steps)
    blocks = -(-steps // size)
    padding = blocks * size - steps
    kernels = _kernels(record, size)
    inputs = F.pad(x, (0, 0, 0, padding)) if padding else x
    inputs = turned(inputs.flatten(0, 1)).unflatten(1, (rows, blocks, size))
    begun = record.reset
    if begun is not None:
        begun = F.pad(begun, (0, padding)).unflatten(1, (blocks, size)).cumsum(2)
    written = inputs if begun is None else inputs.masked_fill(begun != begun[..., -1:], 0)
    reset = None if begun is None else begun[..., -1] > 0
    before, last = _carry(kernels.across, _written(kernels, written), state.transpose(0, 1), reset)
    read = _read(kernels, inputs, before, begun)
    read = turned(read.flatten(1)).unflatten(0, (rows, blocks * size))[:, :steps]
    if valid is None and not padding:
        return read, last.transpose(0, 1)
    counts = torch.full((rows,), steps, device=x.device) if valid is None else valid.sum(1)
    ends = torch.cat([before, last[:, :, None]], 2)
    state = _last(kernels, inputs, ends, begun, counts).transpose(0, 1)
    return read if valid is None else read.masked_fill(~valid[..., None], 0), state


class Kernels(NamedTuple):
    """What the steps of a block are to each other and to the states around it. M is 2 N where states are complex."""

    pairs: Float[Tensor, "D C C"]  # what is read at i of input j
    recall: Float[Tensor, "D C M"]  # what is read at i of the state before the block
    write: Float[Tensor, "D C M"]  # what is left of input j at the end of a whole block
    across: Inexact[Tensor, "D N"]  # what is left of the states before the block at its end


def _kernels(record: StateSpace, size: int) -> Kernels:
    left = _Powers.apply(record.log_decay, size)
    kernel = (_pairs(left[:, :-1]) @ _pairs(record.read.conj())[..., None])[..., 0]
    if record.skip is not None:
        kernel = torch.cat([kernel[:, :1] + record.skip[:, None], kernel[:, 1:]], 1)
    # row i holds k_i, ..., k_0, 0, ...: windows over the kernel backwards, from the last to the first
    pairs = F.pad(kernel.flip(1), (0, size - 1)).unfold(1, size, 1).flip(1)
    recall, write = _pairs((record.read[:, None] * left[:, 1:]).conj()), _pairs(left[:, :-1].flip(1))
    return Kernels(pairs, recall, write, left[:, -1])


class _Powers(Function):
    """What is left after 0 to C steps, D C N: in float64, so that slow decays keep their digits over a whole block.

    An exponential for about sqrt(C) of them: the others are products of two. One function, so that none of the float64
    is kept for the backward.
    """

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor, size: int) -> Tensor:
        a = widen(log_decay, torch.float64)[:, None]
        few = max(1, round(size**0.5))
        index = torch.arange(size // few + 1, dtype=torch.float64, device=a.device)[:, None]
        left = (few * index * a).exp()[:, :, None] * (index[:few] * a).exp()[:, None]
        kind = wide(log_decay)
        left = _pairs(widen(left.flatten(1, 2)[:, : size + 1], kind))
        # a product with a number that is too small to be normal takes as long as a hundred others
        left = _numbers(F.hardshrink(left, torch.finfo(kind).tiny), a)
        ctx.save_for_backward(left)
        return left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (left,) = ctx.saved_tensors
        index = torch.arange(left.shape[1], dtype=left.real.dtype, device=left.device)[:, None]
        return (index * left.conj() * grad_outputs[0]).sum(1), None


def _pairs(x: Inexact[Tensor, "... N"]) -> Float[Tensor, "... M"]:
    """Complex numbers as pairs of real ones; real numbers as they are."""
    return torch.view_as_real(x.resolve_conj()).flatten(-2) if x.is_complex() else x


def _numbers(x: Float[Tensor, "... M"], like: Tensor) -> Inexact[Tensor, "... N"]:
    """And back."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2))) if like.is_complex() else x


def _read(
    kernels: Kernels,
    inputs: Float[Tensor, "D B Q C"],
    before: Inexact[Tensor, "D B Q N"],
    begun: Int[Tensor, "B Q C"] | None,
) -> Float[Tensor, "D B Q C"]:
    """What is read of the same block and of the states before it. A block with resets is its sequences, each alone."""
    recalled = _pairs(before).flatten(1, 2) @ kernels.recall.mT
    pairs = kernels.pairs.mT
    if begun is None:
        return torch.baddbmm(recalled, inputs.flatten(1, 2), pairs).view_as(inputs)
    read = recalled.view_as(inputs).masked_fill(begun > 0, 0)
    for sequence in range(int(begun.max()) + 1):
        other = begun != sequence
        own = (inputs.masked_fill(other, 0).flatten(1, 2) @ pairs).view_as(inputs)
        read = torch.where(other, read, read + own)
    return read


def _carry(
    across: Inexact[Tensor, "D N"],
    drive: Inexact[Tensor, "D B Q N"],
    state: Inexact[Tensor, "D B N"],
    reset: Bool[Tensor, "B Q"] | None,
) -> tuple[Inexact[Tensor, "D B Q N"], Inexact[Tensor, "D B N"]]:
    """The states before every block, and after the last."""
    before, last = [], state
    for part, begins in zip(drive.unbind(2), by_step(reset, drive.shape[2]), strict=True):
        before.append(last)
        last = torch.addcmul(part, across[:, None], last if begins is None else _forget(begins, last))
    return torch.stack(before, 2), last


def _last(
    kernels: Kernels,
    inputs: Float[Tensor, "D B Q C"],
    ends: Inexact[Tensor, "D B Q_and_1 N"],
    begun: Int[Tensor, "B Q C"] | None,
    counts: Int[Tensor, " B"],
) -> Inexact[Tensor, "D B N"]:
    """The states after each row's last step."""
    size = inputs.shape[3]
    rows, blocks, rest = torch.arange(len(counts), device=counts.device), counts // size, (counts % size)[:, None]
    # the block that a row ends inside of: its steps moved to the end, as if the block were whole
    index = torch.arange(size, device=counts.device) - size + rest
    block, outside, index = blocks.clamp(max=inputs.shape[2] - 1), index < 0, index.clamp(min=0)
    tail = inputs[:, rows, block].gather(2, index.expand(len(inputs), -1, -1))
    kept = ends[:, rows, blocks]
    if begun is not None:
        begun = begun[rows, block].gather(1, index)
        outside = outside | (begun != begun[:, -1:])
        kept = _forget((begun[:, -1:] > 0) & (rest > 0), kept)
    written = _written(kernels, tail.masked_fill(outside, 0)[:, :, None])[:, :, 0]
    left = _numbers(kernels.write[:, size - 1 - rest[:, 0]], kernels.across)
    return torch.addcmul(written, left, kept)


def _forget(reset: Bool[Tensor, "..."], state: Inexact[Tensor, "D B N"]) -> Inexact[Tensor, "D B N"]:
    return state.masked_fill(reset.reshape(-1, 1), 0)


def _written(kernels: Kernels, inputs: Float[Tensor, "D B Q C"]) -> Inexact[Tensor, "D B Q N"]:
    """The states that whole blocks of inputs leave behind."""
    states = inputs.flatten(1, 2) @ kernels.write
    return _numbers(states.unflatten(1, inputs.shape[1:3]), kernels.across)
