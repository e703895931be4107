"""`Diag` by two levels of blocks: time is cut into about sqrt(T) blocks of about sqrt(T) steps.

All blocks run side by side from nothing, then one loop carries the state from block to block, then one fix-up adds
to every step what was there when its block began. So 2 sqrt(T) small operations replace T, and memory is read and
written a constant number of times; a scan of log-depth would read it log(T) times, which is slower on a CPU.
"""

import math
from typing import Any

import torch
from torch.nn import functional as F

from recurra.ops.diag import Diag, loop
from recurra.ops.rings import SUM
from recurra.ops.steps import restart
from recurra.shapes import Bool, Inexact, Tensor


def declines(record: Diag, state: Tensor) -> str | None:
    """A single step has nothing to cut, and the gradient is written for one type."""
    if record.drive.shape[1] == 1:
        return "a single step"
    if state.dtype != record.drive.dtype:
        return f"the state is {state.dtype}, the drive {record.drive.dtype}"
    return None


def scan(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    if record.ring == SUM:
        return _Sum.apply(record.decay, record.drive, state, record.reset)
    return _blocks(record, state)


def _blocks(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    """The method, over any ring, made of the loop: inside the blocks, and again from block to block."""
    decay, drive, ring, reset = record
    rows, steps = drive.shape[:2]
    size = math.isqrt(steps - 1) + 1
    blocks = -(-steps // size)

    def fold(x: Tensor, fill: float) -> Tensor:
        padding = (0,) * (2 * (x.ndim - 2)) + (0, blocks * size - steps)
        return F.pad(x, padding, value=fill).reshape(rows * blocks, size, *x.shape[2:])

    varies = decay.ndim == drive.ndim
    drive = fold(drive, ring.zero)
    begins = None if reset is None else fold(reset, 0.0)
    decay = fold(decay, ring.one) if varies else decay
    own, _ = loop.scan(Diag(decay, drive, ring, begins), torch.full_like(drive[:, 0], ring.zero))

    # the product of the decays so far is the same recurrence with nothing to add
    product = ring._replace(add=lambda x, _: x, start=ring.one)
    like = decay if varies else decay.expand(1, size, *decay.shape)
    kept, _ = loop.scan(Diag(decay, like, product, begins if varies else None), torch.full_like(like[:, 0], ring.one))

    own = own.unflatten(0, (rows, blocks))
    kept = kept.unflatten(0, (rows, blocks)) if varies else kept[None]
    # what was before a reset does not reach the end of its block, whose own h has begun from the start already
    onward = ring._replace(start=ring.zero)
    began = None if begins is None else begins.unflatten(0, (rows, blocks)).cumsum(2) > 0
    across = kept[:, :, -1] if varies else kept[0, 0, -1]
    ends, _ = loop.scan(Diag(across, own[:, :, -1], onward, None if began is None else began[:, :, -1]), state)
    before = torch.cat([state[:, None], ends[:, :-1]], 1)[:, :, None]
    if began is not None:
        before = torch.where(began.reshape(*began.shape, *(1,) * (before.ndim - 3)), ring.zero, before)
    read = ring.add(ring.mul(kept, before), own).flatten(1, 2)[:, :steps]
    return read, read[:, -1]


class _Sum(torch.autograd.Function):
    """Over (+, x) the gradient is the same scan, backwards in time over the conjugate decays: only h is kept."""

    @staticmethod
    def forward(
        ctx: Any, decay: Tensor, drive: Tensor, state: Tensor, reset: Bool[Tensor, "B T"] | None
    ) -> tuple[Tensor, Tensor]:
        read, last = _blocks(Diag(decay, drive, SUM, reset), state)
        ctx.save_for_backward(decay, state, read, reset)
        return read, last.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        decay, state, read, reset = ctx.saved_tensors
        grad_read, grad_last = grad_outputs
        varies = decay.ndim == read.ndim
        flow = _flow(decay.conj(), grad_read, grad_last, reset)
        before = torch.cat([state[:, None], read[:, :-1]], 1)
        grad_state = (decay[:, 0] if varies else decay).conj() * flow[:, 0]
        if reset is not None:
            before = before.masked_fill(reset.reshape(*reset.shape, *(1,) * (before.ndim - 2)), 0)
            grad_state = restart(reset[:, 0], grad_state)
        grad_decay = flow * before.conj()
        grad_decay = grad_decay if decay.is_complex() else grad_decay.real
        return grad_decay.sum_to_size(decay.shape), flow, grad_state, None


def _flow(decay: Tensor, grad_read: Tensor, grad_last: Tensor, reset: Tensor | None) -> Tensor:
    """The gradient with respect to every h: what its read gets, and what the next h hands back unless it began anew."""
    last = grad_read[:, -1] + grad_last
    if grad_read.shape[1] == 1:
        return last[:, None]
    after = decay[:, 1:].flip(1) if decay.ndim == grad_read.ndim else decay
    began = None if reset is None else reset[:, 1:].flip(1)
    earlier, _ = _blocks(Diag(after, grad_read[:, :-1].flip(1), SUM, began), last)
    return torch.cat([earlier.flip(1), last[:, None]], 1)
