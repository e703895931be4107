"""The rules of hidden states beside a memory of polynomials: data for a record, and known to its kernel by identity."""

import torch
from torch.nn import functional as F

from recurra.shapes import Float, Tensor


def tanh(drive: Float[Tensor, "B U"], hidden: Float[Tensor, "B U"]) -> Float[Tensor, "B U"]:
    """The Legendre memory unit's: what it was does not matter but through what drives it."""
    return F.tanh(drive)


def gated(drive: Float[Tensor, "B GU"], hidden: Float[Tensor, "B U"]) -> Float[Tensor, "B U"]:
    """HiPPO's: a gate says how much of what is new takes the place of what was."""
    gate, new = drive.chunk(2, -1)
    return torch.lerp(hidden, F.tanh(new), F.sigmoid(gate))
