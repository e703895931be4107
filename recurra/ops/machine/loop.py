"""The definition of `Machine`: a `Cell` that does its own products, one step at a time."""

import torch
from torch.nn import functional as F

from recurra.ops.cell import Cell, Rule, Vectors, loop
from recurra.ops.machine import Machine
from recurra.shapes import Float, Tensor

State = tuple[Float[Tensor, "B _"], ...]


def declines(record: Machine, state: State) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Machine, state: State) -> tuple[Float[Tensor, "B T DR"], State]:
    def step(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
        h, c, found, *stored = state
        gates = torch.addmm(drive[0], torch.cat([h, found], -1), record.recurrent.T)
        entry, keep, candidate, out = gates.chunk(4, -1)
        c = torch.addcmul(keep.sigmoid() * c, entry.sigmoid(), candidate.tanh())
        h = out.sigmoid() * c.tanh()
        says = F.linear(h, record.interface, record.interface_bias)
        found, after = record.memory.access(says, tuple(stored))
        return torch.cat([h, found], -1), (h, c, found, *after)

    rule = Rule("machine", step, 1, 0, state=len(state), operator="none")
    return loop.scan(
        Cell(rule, record.x, None, reset=record.reset, valid=record.valid, input_weight=record.input, bias=record.bias),
        state,
    )
