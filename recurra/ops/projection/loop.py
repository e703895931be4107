"""The definition of `Projection`: one step at a time. Costs N^2 for every signal and step.

A step adds what changes, and the change is made in float64: where a step is short, one minus it would keep no digits.
"""

import itertools
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from recurra.ops.block import apply
from recurra.ops.projection import Projection
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor

BLOCK = 64  # steps whose matrices exist at once
TERMS = 18  # of a series whose argument is at most 1: the next is below the last digit of a float64


def declines(record: Projection, state: tuple[Tensor, Tensor]) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(
    record: Projection, state: tuple[Float[Tensor, "B U"], Float[Tensor, "B M N"]]
) -> tuple[Float[Tensor, "B T U"], tuple[Float[Tensor, "B U"], Float[Tensor, "B M N"]]]:
    steps = record.feed.shape[1]
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    feeds, drives = record.feed.unbind(1), record.drive.unbind(1)
    hidden, memory = state
    matrices, reads = changes(record.generator, record.span), []
    for feed, drive, change, begins, happens in zip(feeds, drives, matrices, resets, valids, strict=True):
        h, m = (hidden, memory) if begins is None else (restart(begins, hidden), restart(begins, memory))
        feed = feed + F.linear(h, record.feed_hidden)
        if record.feed_memory is not None:
            feed = feed + F.linear(m.flatten(1), record.feed_memory)
        m = m + apply(change, torch.cat([m[..., :1] - feed[..., None], m[..., 1:]], -1))
        drive = drive + F.linear(m.flatten(1), record.recur_memory)
        if record.recur_hidden is not None:
            drive = drive + F.linear(h, record.recur_hidden)
        read = h = record.rule(drive, h)
        if happens is not None:
            h, m = torch.where(happens[:, None], h, hidden), torch.where(happens[:, None, None], m, memory)
            read = read.masked_fill(~happens[:, None], 0)
        hidden, memory = h, m
        reads.append(read)
    return torch.stack(reads, 1), (hidden, memory)


def changes(generator: Float[Tensor, "N N"], span: Float[Tensor, "B T"]) -> Iterator[Float[Tensor, "_ 1 N N"]]:
    """What every step's exponential differs from 1 by; for all rows together where all steps are of one length."""
    for several in span.split(BLOCK, 1):
        if several.requires_grad:
            yield from _change(generator, several)[:, :, None].to(span.dtype).unbind(1)
            continue
        # few lengths are usual: each has its exponential once
        lengths, which = several.unique(return_inverse=True)
        change = _change(generator, lengths)[:, None].to(span.dtype)
        if len(lengths) == 1:
            yield from [change] * several.shape[1]
        else:
            yield from change[which].unbind(1)


def _change(generator: Float[Tensor, "N N"], span: Float[Tensor, "*S"]) -> Float[Tensor, "*S N N"]:
    """Taylor's series of a part of the span, doubled until it is whole: powers of the generator serve all spans."""
    generator, span = generator.double(), span.double()
    norm = torch.linalg.matrix_norm(generator, 1)
    endless = torch.isinf(span)
    size = span.masked_fill(endless, 0) * norm
    doublings = size.detach().log2().ceil().clamp(min=0).nan_to_num(0)
    order = torch.arange(1, TERMS + 1, dtype=torch.float64, device=span.device)
    powers = list(itertools.accumulate([generator / norm] * TERMS, torch.matmul))
    weights = (size / 2**doublings)[..., None] ** order / order.cumprod(0)
    change = torch.tensordot(weights, torch.stack(powers), 1)
    for done in range(int(doublings.max()) if doublings.numel() else 0):
        some = doublings > done
        half = change[some]
        # of e^2x - 1 in terms of e^x - 1
        change = change.index_put((some,), 2 * half + half @ half)
    identity = torch.eye(len(generator), dtype=torch.float64, device=generator.device)
    return torch.where(endless[..., None, None], -identity, change)
