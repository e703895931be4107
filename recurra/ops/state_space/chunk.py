r"""`StateSpace` by blocks of C steps: inside a block a convolution, from block to block the recurrence.

The steps of a block reach each other through the kernel :math:`k_i = \operatorname{Re} \sum_n c_n e^{i a_n}`, laid out
as a C by C matrix; a block's inputs make its last states through a Vandermonde matrix, and the states before it are
read through another. So a step costs C + 4 N products for every feature, all of them inside matrix products, and
states exist once a block: B T D N / C numbers. Nothing is as long as the sequence, so no power is higher than C and
no kernel is tied to a length. Resets split a block into its sequences, one product for each.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.ops.diag import Diag, chunk as diag_chunk
from recurra.ops.state_space import StateSpace
from recurra.shapes import Float, Inexact, Int, Tensor, wide, widen

LENGTH = 64  # steps in a block


def declines(record: StateSpace, state: Tensor) -> str | None:
    """A single step has nothing to cut; steps that did not happen must come last."""
    if record.x.shape[1] == 1:
        return "a single step"
    if len({x.is_complex() for x in (record.log_decay, record.read, state)}) > 1:
        return "decay, read and state must be all real or all complex"
    valid = record.valid
    if valid is not None and bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        return "steps that did not happen lie before steps that did: align them first (Clock.aligned)"
    return None


def scan(
    record: StateSpace, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    x, valid = record.x, record.valid
    steps = x.shape[1]
    size = min(LENGTH, steps)
    blocks = -(-steps // size)
    kernels = _kernels(record, size)
    inputs = F.pad(x, (0, 0, 0, blocks * size - steps)).unflatten(1, (blocks, size)).permute(3, 2, 0, 1)
    counts = torch.full((len(x),), steps, device=x.device) if valid is None else valid.sum(1)
    begun = record.reset
    if begun is not None:
        begun = F.pad(begun, (0, blocks * size - steps)).unflatten(1, (blocks, size)).cumsum(2).permute(2, 0, 1)
    before, state = _carry(kernels, inputs, begun, counts, state)
    read = _within(kernels.pairs, inputs, begun) + _recall(kernels.recall, before, begun)
    read = read.permute(2, 3, 1, 0).flatten(1, 2)[:, :steps]
    return read if valid is None else read.masked_fill(~valid[..., None], 0), state


class _Kernels(NamedTuple):
    """What the steps of a block are to each other and to the states around it. M is 2 N where states are complex."""

    pairs: Float[Tensor, "D C C"]  # what is read at i of input j
    recall: Float[Tensor, "D C M"]  # what is read at i of the state before the block
    write: Float[Tensor, "D M C"]  # what is left of input j at the end of a whole block
    left: Inexact[Tensor, "P D N"]  # what is left of a state after 0 to C steps


def _kernels(record: StateSpace, size: int) -> _Kernels:
    """Powers are taken in float64, by one exponential each: slow decays keep their digits over a whole block."""
    a, read = record.log_decay, record.read
    index = torch.arange(size + 1, dtype=torch.float64, device=a.device)[:, None, None]
    left = widen((index * widen(a, torch.float64)).exp(), wide(a))
    recalled = read * left
    kernel = recalled[:-1].sum(-1)
    kernel = (kernel.real if kernel.is_complex() else kernel).t()
    # row i holds k_i, ..., k_0, 0, ...: windows over the kernel backwards, from the last to the first
    pairs = F.pad(kernel.flip(1), (0, size - 1)).unfold(1, size, 1).flip(1)
    recall = torch.cat([recalled.real, -recalled.imag], -1) if recalled.is_complex() else recalled
    return _Kernels(pairs, recall[1:].transpose(0, 1), _pairs(left[:-1].flip(0).permute(1, 2, 0), 1), left)


def _pairs(x: Inexact[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """Complex numbers as real parts and then imaginary parts along an axis; real numbers as they are."""
    return torch.cat([x.real, x.imag], axis) if x.is_complex() else x


def _within(
    pairs: Float[Tensor, "D C C"], inputs: Float[Tensor, "D C B Q"], begun: Int[Tensor, "C B Q"] | None
) -> Float[Tensor, "D C B Q"]:
    """What is read of the same block. A block with resets is its sequences, each by itself."""
    if begun is None:
        return (pairs @ inputs.flatten(2)).view_as(inputs)
    read = torch.zeros_like(inputs)
    for sequence in range(int(begun.max()) + 1):
        other = begun != sequence
        own = (pairs @ inputs.masked_fill(other, 0).flatten(2)).view_as(inputs)
        read = torch.where(other, read, own)
    return read


def _recall(
    recall: Float[Tensor, "D C M"], before: Inexact[Tensor, "B Q D N"], begun: Int[Tensor, "C B Q"] | None
) -> Float[Tensor, "D C B Q"]:
    """What is read of the states before each block, until a sequence begins."""
    rows, blocks = before.shape[:2]
    read = (recall @ _pairs(before, -1).permute(2, 3, 0, 1).flatten(2)).unflatten(2, (rows, blocks))
    return read if begun is None else read.masked_fill(begun > 0, 0)


def _carry(
    kernels: _Kernels,
    inputs: Float[Tensor, "D C B Q"],
    begun: Int[Tensor, "C B Q"] | None,
    counts: Int[Tensor, " B"],
    state: Inexact[Tensor, "B D N"],
) -> tuple[Inexact[Tensor, "B Q D N"], Inexact[Tensor, "B D N"]]:
    """The states before every block, and after each row's last step."""
    size = inputs.shape[1]
    last = inputs if begun is None else inputs.masked_fill(begun != begun[-1], 0)
    drive = _written(kernels, last).permute(2, 3, 0, 1)
    resets = None if begun is None else begun[-1] > 0
    ends, _ = diag_chunk.scan(Diag(kernels.left[-1], drive, reset=resets), state)
    ends = torch.cat([state[:, None], ends], 1)
    rows, blocks, rest = torch.arange(len(state), device=state.device), counts // size, counts % size
    # the block that a row ends inside of: its steps moved to the end, as if the block were whole
    index = torch.arange(size, device=state.device)[:, None] - size + rest
    block = blocks.clamp(max=inputs.shape[3] - 1)
    shape = (*inputs.shape[:2], len(state))
    tail = inputs[..., rows, block].gather(1, index.clamp(min=0).expand(shape))
    outside, forgotten = index < 0, None
    if begun is not None:
        begun = begun[:, rows, block].gather(0, index.clamp(min=0))
        outside, forgotten = outside | (begun != begun[-1]), (begun[-1] > 0) & (rest > 0)
    written = _written(kernels, tail.masked_fill(outside, 0)[..., None])[..., 0].permute(2, 0, 1)
    kept = ends[rows, blocks]
    kept = kept if forgotten is None else kept.masked_fill(forgotten[:, None, None], 0)
    return ends[:, :-1], kernels.left[rest] * kept + written


def _written(kernels: _Kernels, inputs: Float[Tensor, "D C B Q"]) -> Inexact[Tensor, "D N B Q"]:
    """The states that whole blocks of inputs leave behind."""
    states = (kernels.write @ inputs.flatten(2)).unflatten(2, inputs.shape[2:])
    return torch.complex(*states.chunk(2, 1)) if kernels.left.is_complex() else states
