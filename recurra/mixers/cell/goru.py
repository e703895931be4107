"""The gated orthogonal recurrent unit."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.operators import Rotations
from recurra.shapes import Float, Tensor


def goru(
    drive: Vectors, recur: Vectors, state: Vectors, reset_bias: Tensor, keep_bias: Tensor, bias: Tensor
) -> tuple[Tensor, Vectors]:
    """Gates: reset, keep, candidate. State: h."""
    (h,) = state
    reset = torch.sigmoid(drive[0] + recur[0] + reset_bias)
    keep = torch.sigmoid(drive[1] + recur[1] + keep_bias)
    turned = drive[2] + reset * recur[2]
    candidate = torch.sign(turned) * torch.relu(torch.abs(turned) + bias)
    h = keep * h + (1 - keep) * candidate
    return h, (h,)


GORU_RULE = Rule("goru", goru, 3, 3, params=3)


class GORU(Mixer):
    r"""A GRU whose candidate turns the state instead of squashing it: it can hold for long, and it can forget.

    .. math::
        r_t = \sigma(W_r x_t + R_r h_{t-1} + b_r) \qquad g_t = \sigma(W_g x_t + R_g h_{t-1} + b_g)
    .. math::
        z_t = W_c x_t + r_t \odot Q h_{t-1} \qquad
        c_t = \operatorname{sign}(z_t) \odot \operatorname{relu}(\lvert z_t \rvert + b_c) \qquad
        y_t = h_t = g_t \odot h_{t-1} + (1 - g_t) \odot c_t

    with Q orthogonal, layers of rotations of neighbouring units. Jing et al. 2019, https://arxiv.org/abs/1706.02761. As
    in the authors' code W and R start even within 0.01, b_r at 2, b_c at 0.01, angles anywhere. Unlike their code a
    layer leaves alone a unit that it has no neighbour for; theirs sets it to zero where units are even in number, so
    that it has no orthogonal matrix then.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        rotations: layers of Q: the more, the more orthogonal matrices can be reached, all with D of them.

    Raises:
        ValueError: there are no `rotations`, or fewer than 2 units.
    """

    undecayed = ("params",)

    def __init__(self, width: int, *, rotations: int = 2) -> None:
        super().__init__()
        self.input_weight = nn.Parameter(torch.empty(3 * width, width).uniform_(-0.01, 0.01))
        self.weight = nn.Parameter(torch.empty(2, 1, width, width).uniform_(-0.01, 0.01))
        self.params = nn.Parameter(torch.tensor([2.0, 0.0, 0.01])[:, None].repeat(1, width))
        self.operator = Rotations(width, rotations)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        return (self.zeros(batch, self.params.shape[1]),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        matrix = self.operator()
        weight = torch.cat([self.weight.to(matrix.dtype), matrix[None, None]])
        record = Cell(GORU_RULE, x, weight, self.params, input_weight=self.input_weight)
        return self.scan(record, state, clock)
