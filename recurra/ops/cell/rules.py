"""The cells that everybody means by their name, as data. A rule is pointwise: nothing here knows about time."""

import torch

from recurra.ops.cell import Rule, Vectors
from recurra.shapes import Tensor


def elman_tanh(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """h = tanh(W x + b + R h)."""
    h = torch.tanh(drive[0] + recur[0])
    return h, (h,)


def elman_relu(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """h = max(W x + b + R h, 0)."""
    h = torch.relu(drive[0] + recur[0])
    return h, (h,)


def lstm(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """Gates in torch's order: input, forget, candidate, output."""
    _, c = state
    i, f, g, o = (x + r for x, r in zip(drive, recur, strict=True))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, (h, c)


def lstm_peephole(
    drive: Vectors, recur: Vectors, state: Vectors, peep_i: Tensor, peep_f: Tensor, peep_o: Tensor
) -> tuple[Tensor, Vectors]:
    """The input and forget gates see the cell before this step, the output gate sees it after."""
    _, c = state
    i, f, g, o = (x + r for x, r in zip(drive, recur, strict=True))
    i, f = torch.sigmoid(i + peep_i * c), torch.sigmoid(f + peep_f * c)
    c = f * c + i * torch.tanh(g)
    h = torch.sigmoid(o + peep_o * c) * torch.tanh(c)
    return h, (h, c)


def gru_after(drive: Vectors, recur: Vectors, state: Vectors, candidate_bias: Tensor) -> tuple[Tensor, Vectors]:
    """Reset after the product (torch, cuDNN); gates in torch's order: reset, update, candidate."""
    (h,) = state
    reset, update = (torch.sigmoid(x + r) for x, r in zip(drive[:2], recur[:2], strict=True))
    candidate = torch.tanh(drive[2] + reset * (recur[2] + candidate_bias))
    h = (1 - update) * candidate + update * h
    return h, (h,)


def gru_before(drive: Vectors, recur: Vectors, state: Vectors, *, tick: int) -> tuple[Tensor, Vectors]:
    """Reset before the product, so the candidate's comes after: ticks for the gates update, reset, and for the rest."""
    if tick == 0:
        h = state[0]
        return h, (h, torch.sigmoid(drive[1] + recur[0]), h)
    _, update, h = state[:3]
    if tick == 1:
        return h, (torch.sigmoid(drive[0] + recur[0]) * h,)
    h = (1 - update) * torch.tanh(drive[2] + recur[0]) + update * h
    return h, (h,)


ELMAN_TANH = Rule("elman_tanh", elman_tanh, 1, 1)
ELMAN_RELU = Rule("elman_relu", elman_relu, 1, 1)
LSTM = Rule("lstm", lstm, 4, 4, state=2)
LSTM_PEEPHOLE = Rule("lstm_peephole", lstm_peephole, 4, 4, state=2, params=3)
GRU_AFTER = Rule("gru_after", gru_after, 3, 3, params=1)
GRU_BEFORE = Rule("gru_before", gru_before, 3, 1, operator="ticks", ticks=(1, 0, 2), handed=2)
