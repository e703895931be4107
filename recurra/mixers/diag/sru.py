"""The simple recurrent unit, in the paper's form and in the earlier one that is a scan."""

import math

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Diag, Rule, Scan, Vectors
from recurra.shapes import Float, Tensor


def sru(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """Drive: candidate, forget, reset, and the input that reset lets past the cell. State: c."""
    (c,) = state
    candidate, forget, reset, skip = drive
    forget, reset = forget + recur[0], torch.sigmoid(reset + recur[1])
    c = torch.sigmoid(forget) * c + torch.sigmoid(-forget) * candidate
    return reset * c + (1 - reset) * skip, (c,)


SRU_RULE = Rule("sru", sru, 4, 2, operator="diagonal")


class SRU(Mixer):
    r"""A cell in which no unit sees another: all products are of the input, and are made for all steps at once.

    .. math::
        f_t = \sigma(W_f x_t + v_f \odot c_{t-1} + \beta_f) \qquad
        c_t = f_t \odot c_{t-1} + (1 - f_t) \odot W x_t
        \\
        r_t = \sigma(W_r x_t + v_r \odot c_{t-1} + \beta_r) \qquad
        y_t = r_t \odot c_t + (1 - r_t) \odot \alpha x_t \qquad \alpha = \sqrt{1 + 2 e^{b}}

    Lei et al. 2018, https://arxiv.org/abs/1709.02755. b is where :math:`\beta_r` starts, and :math:`\alpha` stays what
    it was then. Without `peepholes` there are no v, as in the paper's first version: it is linear in c, and a scan.
    Unlike the paper there is no dropout; units are as many as features, so that the highway needs no map.
    State: (c,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        peepholes: whether the gates see the cell.
        highway_bias: b: the lower, the more of the input passes the cell by at the start.
    """

    undecayed = ("peepholes",)

    def __init__(self, width: int, *, peepholes: bool = True, highway_bias: float = 0.0) -> None:
        super().__init__()
        # candidate, forget, reset
        self.inputs = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.cat([torch.zeros(width), torch.full((width,), highway_bias)]))
        self.peepholes = nn.Parameter(torch.empty(2, width)) if peepholes else None
        self.highway = math.sqrt(1 + 2 * math.exp(highway_bias))
        self.scan = Scan()
        nn.init.uniform_(self.inputs.weight, -math.sqrt(3 / width), math.sqrt(3 / width))
        if self.peepholes is not None:
            # the cell's share of a gate and the input's are alike, and one together
            nn.init.uniform_(self.peepholes, -math.sqrt(1.5), math.sqrt(1.5))
            with torch.no_grad():
                self.inputs.weight[width:].mul_(math.sqrt(0.5))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        """Nothing in the cell: zeros."""
        return (self.zeros(batch, self.inputs.in_features),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        candidate, *gates = self.inputs(x).chunk(3, -1)
        forget, reset = (gate + bias for gate, bias in zip(gates, self.bias.chunk(2), strict=True))
        skip = self.highway * x
        if self.peepholes is not None:
            return self.scan(
                Cell(SRU_RULE, torch.cat([candidate, forget, reset, skip], -1), self.peepholes), state, clock
            )
        # wide, and 1 - f a sigmoid of its own: a decay near 1 that is rounded is wrong at every later step
        forget = forget.to(state[0].dtype)
        read, c = self.scan(Diag(forget.sigmoid(), (-forget).sigmoid() * candidate), state[0], clock)
        return torch.lerp(skip, read.to(skip.dtype), reset.sigmoid()), (c,)
