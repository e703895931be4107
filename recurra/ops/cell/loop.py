"""The definition of `Cell`: one step at a time, with torch's own products."""

import torch
from torch.nn import functional as F

from recurra.ops.cell import Cell
from recurra.ops.steps import by_step, restart
from recurra.shapes import Float, Tensor


def declines(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def recur(record: Cell, hidden: Float[Tensor, "B M"], kind: int = 0) -> tuple[Tensor, ...]:
    """R h, as the rule wants it; where there are several R, of one kind."""
    weight, operator = record.weight, record.rule.operator
    if operator == "none":
        return ()
    assert weight is not None
    if operator == "own":
        return (weight,)
    if operator == "diagonal":
        return (weight[:, None] * hidden).unbind(0)
    if operator == "ticks":
        weight = weight[kind * record.rule.recur : (kind + 1) * record.rule.recur]
    gates, heads, rows, columns = weight.shape
    if heads == 1:
        return F.linear(hidden, weight.reshape(gates * rows, columns)).chunk(gates, -1)
    blocks = hidden.unflatten(-1, (heads, columns))
    return torch.einsum("ghij,bhj->gbhi", weight, blocks).flatten(2).unbind(0)


def scan(
    record: Cell, state: tuple[Float[Tensor, "B _"], ...]
) -> tuple[Float[Tensor, "B T _"], tuple[Float[Tensor, "B _"], ...]]:
    record = record.driven()
    rule, steps = record.rule, record.drive.shape[1]
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    params = () if record.params is None else record.params.unbind(0)
    reads = []
    for drive, begins, happens in zip(record.drive.unbind(1), resets, valids, strict=True):
        if begins is not None:
            state = tuple(restart(begins, x) for x in state)
        given, new, read = drive.chunk(rule.drive, -1), state, drive
        for tick, kind in enumerate(rule.ticks):
            read, left = rule.at(tick)(given, recur(record, new[0], kind), new, *params)
            new = left if tick == len(rule.ticks) - 1 else (*left, *new[len(left) :])
        if record.project is not None:
            read = F.linear(read, record.project)
            new = (read, *new[1:])
        if happens is not None:
            new = tuple(torch.where(happens[:, None], x, y) for x, y in zip(new, state, strict=True))
            read = torch.where(happens[:, None], read, 0)
        state = new
        reads.append(read)
    return torch.stack(reads, 1), tuple(state)
