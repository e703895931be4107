"""The recurrent network that starts as the identity."""

import torch
from torch import nn

from recurra.checks import greater_than
from recurra.mixers.base import OnePart
from recurra.ops import Rule, Vectors
from recurra.parts.cell import DenseCell
from recurra.shapes import Tensor

HIGHEST = 1e4


def irnn(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """h = min(max(W x + b + R h, 0), 10000)."""
    h = torch.clamp(drive[0] + recur[0], 0, HIGHEST)
    return h, (h,)


IRNN_RULE = Rule("irnn", irnn, 1, 1)


class IRNN(OnePart):
    r"""A recurrent network of relus that starts out by keeping all it was told: its recurrent matrix is the identity.

    .. math::  h_t = \operatorname{relu}(W x_t + R h_{t-1} + b) \qquad y_t = h_t

    Le et al. 2015, https://arxiv.org/abs/1504.00941. As in the paper R starts as the identity, W normal with deviation
    0.001 and b at zero, so that nothing fades and an error is carried back unchanged. Unlike the paper no unit exceeds
    10,000: once R has been trained above the identity, a state without that bound is infinite a thousand steps on.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        scale: where R starts, times the identity: less than one forgets sooner.

    Raises:
        ValueError: `scale` is not above zero.
    """

    undecayed = ("cell.weight",)

    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        greater_than(0, scale=scale)
        self.cell = DenseCell(IRNN_RULE, width, width)
        nn.init.normal_(self.cell.input_weight, std=0.001)
        with torch.no_grad():
            self.cell.weight.copy_(scale * torch.eye(width))
