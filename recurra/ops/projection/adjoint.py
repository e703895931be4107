"""`Projection` step by step, with a gradient of its own: one loop back over the steps, and one product a weight.

A step's arithmetic is small: recorded operation by operation, most of its time goes to the record. Here a step keeps
what came in and what drove it. A rule is of every unit by itself, so its derivatives at all steps are made at once;
what the loop back hands on are the gradients of h and m, and those of the weights are sums over all steps at its end.
"""

from typing import Any

import torch
from torch.autograd import Function

from recurra.ops.once import once_differentiable
from recurra.ops.projection import Projection, Rule
from recurra.ops.projection.loop import changes
from recurra.ops.steps import product, restart
from recurra.shapes import Bool, Float, Tensor

State = tuple[Float[Tensor, "B U"], Float[Tensor, "B M N"]]


def declines(record: Projection, state: State) -> str | None:
    """A single step, and what torch.compile sees."""
    if record.feed.shape[1] == 1:
        return "a single step"
    return "torch.compile sees no gradient inside a gradient" if torch.compiler.is_compiling() else None


def scan(record: Projection, state: State) -> tuple[Float[Tensor, "B T U"], State]:
    feed, drive, span, generator, rule, feed_hidden, feed_memory, recur_hidden, recur_memory, reset, valid = record
    weights = (feed_hidden, feed_memory, recur_hidden, recur_memory)
    change = matrices(generator, span)
    read, *last = _Adjoint.apply(rule, reset, valid, feed, drive, change, *weights, *state)
    return read, (last[0], last[1])


def matrices(generator: Float[Tensor, "N N"], span: Float[Tensor, "B T"]) -> Float[Tensor, "T R N N"]:
    """What every step's exponential differs from 1 by: for one row where all agree, made once where all steps do."""
    steps = span.shape[1]
    if not span.requires_grad:
        span = span[:1] if bool((span == span[:1]).all()) else span
        span = span[:, :1] if bool((span == span[:, :1]).all()) else span
    return torch.stack([change[:, 0] for change in changes(generator, span)]).expand(steps, -1, -1, -1)


class _Adjoint(Function):
    @staticmethod
    def forward(
        ctx: Any, rule: Rule, reset: Tensor | None, valid: Tensor | None, *inputs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        feed, drive, matrices, feed_hidden, feed_memory, recur_hidden, recur_memory, hidden, memory = inputs
        first = -torch.eye(memory.shape[-1], dtype=memory.dtype, device=memory.device)[0]
        reads, before, moved, after, drives = [], [], [], [], []
        for t, (f, d, change) in enumerate(zip(feed.unbind(1), drive.unbind(1), _each(matrices), strict=True)):
            h, m = (hidden, memory) if reset is None else (restart(reset[:, t], x) for x in (hidden, memory))
            f = _add(_add(f, h, feed_hidden), m.flatten(1), feed_memory)
            off = torch.addcmul(m, f[..., None], first)
            new = m + off @ change.mT
            d = _add(_add(d, new.flatten(1), recur_memory), h, recur_hidden)
            read = rule(d, h)
            for several, x in ((before, (h, m)), (moved, off), (after, new), (drives, d), (reads, read)):
                several.append(x)
            happens = None if valid is None else valid[:, t, None]
            hidden = read if happens is None else torch.where(happens, read, hidden)
            memory = new if happens is None else torch.where(happens[..., None], new, memory)
        ctx.rule = rule
        kept = (*zip(*before, strict=True), moved, after, drives)
        ctx.save_for_backward(reset, valid, *inputs[2:7], *(torch.stack(x) for x in kept))
        read = torch.stack(reads, 1)
        return read if valid is None else read.masked_fill(~valid[..., None], 0), hidden, memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        reset, valid, matrices, feed_hidden, feed_memory, recur_hidden, recur_memory, *kept = ctx.saved_tensors
        hiddens, memories, moved, after, drives = kept
        read, hidden, memory = grad_outputs
        by_drive, by_hidden = _slopes(ctx.rule, drives, hiddens)
        by_drive = by_drive.unflatten(2, (-1, hiddens.shape[2])).unbind(0)
        every, feeds, driven, given = _each(matrices), [], [], []
        for t in reversed(range(len(drives))):
            happens = None if valid is None else valid[:, t, None]
            h, out, m = _happened(happens, hidden), _happened(happens, read[:, t]), _happened(happens, memory)
            h = h + out
            d = (by_drive[t] * h[:, None]).flatten(1)
            m = torch.addmm(m.flatten(1), d, recur_memory).view_as(m)
            given.append(m)
            changed = m @ every[t]
            f, h, m = -changed[..., 0], h * by_hidden[t], (m + changed).flatten(1)
            h = torch.addmm(h if recur_hidden is None else torch.addmm(h, d, recur_hidden), f, feed_hidden)
            m = (m if feed_memory is None else torch.addmm(m, f, feed_memory)).view_as(memory)
            if reset is not None:
                h, m = restart(reset[:, t], h), restart(reset[:, t], m)
            if happens is not None:
                h, m = torch.where(happens, h, hidden), torch.where(happens[..., None], m, memory)
            hidden, memory = h, m
            feeds.append(f)
            driven.append(d)
        f, d = torch.stack(feeds[::-1], 1), torch.stack(driven[::-1], 1)
        hiddens, memories, after = (x.transpose(0, 1) for x in (hiddens, memories, after))
        change = None
        if ctx.needs_input_grad[5]:
            change = (torch.stack(given[::-1]).mT @ moved).sum_to_size(matrices.shape)
        return (
            None, None, None, f, d, change, product(f, hiddens),
            None if feed_memory is None else product(f, memories),
            None if recur_hidden is None else product(d, hiddens),
            product(d, after), hidden, memory,
        )  # fmt: skip


def _each(matrices: Float[Tensor, "T R N N"]) -> list[Tensor]:
    """Every step's: a matrix for all rows, or one for each."""
    return list((matrices[:, 0] if matrices.shape[1] == 1 else matrices).unbind(0))


def _add(x: Float[Tensor, "B X"], y: Float[Tensor, "B Y"], weight: Float[Tensor, "X Y"] | None) -> Float[Tensor, "B X"]:
    return x if weight is None else torch.addmm(x, y, weight.t())


def _happened(happens: Bool[Tensor, "B 1"] | None, grad: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """The gradient of what a step made, where it happened."""
    return grad if happens is None else grad.masked_fill(~happens.view(-1, *(1,) * (grad.ndim - 1)), 0)


def _slopes(
    rule: Rule, drives: Float[Tensor, "T B GU"], hiddens: Float[Tensor, "T B U"]
) -> tuple[Float[Tensor, "T B GU"], Float[Tensor, "T B U"]]:
    """How every unit's new h moves with what drives it and with its h before, at every step."""
    with torch.enable_grad():
        drive, hidden = (x.flatten(0, 1).detach().requires_grad_() for x in (drives, hiddens))
        by_drive, by_hidden = torch.autograd.grad(rule(drive, hidden).sum(), (drive, hidden), materialize_grads=True)
    return by_drive.view_as(drives), by_hidden.view_as(hiddens)
