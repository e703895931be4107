"""LSTM, GRU and Elman through torch's fused functions: the loop over time runs in C++ (oneDNN, cuDNN), not in Python.

They know no clock. So with one, each row falls into segments of steps that happened, cut where a sequence begins:
a row's first goes on from its state, every other from zero. Segments are laid side by side, longest first, and run
as one batch that narrows as they end: one call from each end to the next, and no step is computed that did not
happen. torch's own packed calls do the same, but going backward through theirs costs the square of the length.
"""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from recurra.ops import native
from recurra.ops.cell import Cell, Rule, rules
from recurra.shapes import Bool, Float, Int, Tensor

FUSED: dict[Rule, Callable[..., Any]] = {
    rules.LSTM: torch.lstm,
    rules.GRU_AFTER: torch.gru,
    rules.ELMAN_TANH: torch.rnn_tanh,
    rules.ELMAN_RELU: torch.rnn_relu,
}


def declines(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """Rules that torch does not fuse, blocks, drives that are there already, and transforms of functions."""
    rule, weight = record.rule, record.weight
    if rule not in FUSED:
        return f"torch fuses {', '.join(x.name for x in FUSED)}, not {rule.name}"
    if record.input_weight is None:
        return "torch's functions make W x + b themselves: give x as the drive, and its input_weight"
    if weight is not None and weight.shape[1] != 1:
        return f"torch's functions have one recurrent matrix, not {weight.shape[1]} blocks"
    if record.project is not None and rule != rules.LSTM:
        return f"torch projects the state of lstm, not of {rule.name}"
    if record.project is not None and len(record.project) == record.project.shape[1]:
        return "torch takes a projection to another width only"
    if native.transformed():
        return "torch.vmap and forward-mode derivatives do not know torch's functions"
    return None


def scan(
    record: Cell, state: tuple[Float[Tensor, "B _"], ...]
) -> tuple[Float[Tensor, "B T _"], tuple[Float[Tensor, "B _"], ...]]:
    # oneDNN has no projection: torch runs its other code, and warns that it does
    quiet = contextlib.nullcontext() if record.project is None else warnings.catch_warnings(action="ignore")
    # autocast would send the state through bfloat16
    with torch.autocast(record.drive.device.type, enabled=False), quiet:
        if record.reset is None and record.valid is None:
            return _run(record, record.drive, state, batch_first=True)
        return _segments(record, state)


def _run(record: Cell, x: Tensor, state: tuple[Tensor, ...], *, batch_first: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All steps of all rows, in one call."""
    start = tuple(part[None].contiguous() for part in state)
    hidden = start if record.rule == rules.LSTM else start[0]
    layers, dropout, train, bidirectional = 1, 0.0, torch.is_grad_enabled(), False
    read, *last = FUSED[record.rule](
        x, hidden, _weights(record), True, layers, dropout, train, bidirectional, batch_first
    )
    return read, tuple(part[0] for part in last)


def _weights(record: Cell) -> list[Tensor]:
    """W, R, the bias, the recurrent bias (zero but for the GRU's candidate), the projection."""
    assert record.input_weight is not None and record.weight is not None
    recurrent = record.weight.flatten(0, 2)
    zero = recurrent.new_zeros(len(recurrent))
    bias = zero if record.bias is None else record.bias
    inner = zero
    if record.params is not None:
        inner = F.pad(record.params[0], (len(zero) - record.params.shape[1], 0))
    project = () if record.project is None else (record.project,)
    return [record.input_weight, recurrent, bias, inner, *project]


class _Packing(NamedTuple):
    """Where the steps of segments laid side by side come from. S segments, n steps that happened."""

    take: Int[Tensor, " n"]  # step, all first ones first -> its place in the flattened (B T)
    widths: list[int]  # how many segments are as long as the first, second, ... call goes on
    lengths: list[int]  # the steps of each call
    order: Int[Tensor, " S"]  # segments, longest first
    row: Int[Tensor, " S"]  # the row of each segment, in the rows' order
    fresh: Bool[Tensor, " S"]  # begins a sequence: starts from zero


def _pack(reset: Bool[Tensor, "B T"], valid: Bool[Tensor, "B T"]) -> _Packing:
    place = valid.flatten().nonzero()[:, 0]
    cut = (reset | (valid.cumsum(1) == 1)).flatten()[place]
    segment = cut.cumsum(0) - 1
    heads = cut.nonzero()[:, 0]
    offset = torch.arange(len(place), device=place.device) - heads[segment]
    order = segment.bincount().argsort(descending=True, stable=True)
    packed = (offset * len(order) + order.argsort()[segment]).argsort()
    first = place[heads]
    row, fresh = first // valid.shape[1], reset.flatten()[first]
    widths, lengths = offset.bincount().unique_consecutive(return_counts=True)
    return _Packing(place[packed], widths.tolist(), lengths.tolist(), order, row, fresh)


def _segments(record: Cell, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    shape = record.drive.shape[:2]
    reset, valid = record.reset, record.valid
    reset = torch.zeros(shape, dtype=torch.bool, device=record.drive.device) if reset is None else reset
    valid = torch.ones_like(reset) if valid is None else valid
    empty = state[0].new_zeros(shape.numel(), state[0].shape[1])
    if not valid.any():
        return empty.unflatten(0, shape), state
    take, widths, lengths, order, row, fresh = _pack(reset, valid)
    x = record.drive.flatten(0, 1)[take].split([n * width for n, width in zip(lengths, widths, strict=True)])
    live = tuple(part[row].masked_fill(fresh[:, None], 0)[order] for part in state)
    reads, ended = [], []
    for block, width in zip(x, widths, strict=True):
        live, done = zip(*(part.split([width, len(part) - width]) for part in live), strict=True)
        read, live = _run(record, block.unflatten(0, (-1, width)), live, batch_first=False)
        reads.append(read.flatten(0, 1))
        ended.append(done)
    last = (torch.cat(parts[::-1]) for parts in zip(*ended, live, strict=True))
    ends = row.diff(append=row.new_tensor([-1])).nonzero()[:, 0]
    found = order.argsort()[ends]
    state = tuple(x.index_copy(0, row[ends], y[found]) for x, y in zip(state, last, strict=True))
    return empty.index_copy(0, take, torch.cat(reads)).unflatten(0, shape), state
