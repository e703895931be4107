"""The recurrent network whose matrix is orthogonal, made of mirrors."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.linear import handed
from recurra.parts.operators import Reflections
from recurra.shapes import Float, Tensor


def ornn(drive: Vectors, recur: Vectors, state: Vectors) -> tuple[Tensor, Vectors]:
    """h = leaky relu(W x + b + Q h), a tenth of what is below zero."""
    h = F.leaky_relu(drive[0] + recur[0], 0.1)
    return h, (h,)


ORNN_RULE = Rule("ornn", ornn, 1, 1)


class ORNN(Mixer):
    r"""A recurrent network whose matrix only turns and mirrors its state, so that products of many steps keep lengths.

    .. math::
        h_t = \operatorname{leaky}(W x_t + Q h_{t-1} + b) \qquad y_t = h_t \qquad
        Q = H_1 H_2 \cdots H_m \qquad H_k = I - 2 \frac{u_k u_k^\top}{u_k^\top u_k}

    with leaky(z) = max(z, z / 10), and u zero before its k-th entry. Mhammedi et al. 2017,
    https://arxiv.org/abs/1612.00188. Unlike the paper the first state is zero and not learned, and there are at most
    D - 1 mirrors: the D-th has no parameter, it is a sign.
    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        reflections: m, how much of the orthogonal matrices can be reached; None: half of `width`.

    Raises:
        ValueError: `reflections` is not at least 1 and below `width`.
    """

    undecayed = ("operator.mirrors",)

    def __init__(self, width: int, *, reflections: int | None = None) -> None:
        super().__init__()
        self.input = nn.Linear(width, width)
        self.operator = Reflections(width, max(1, width // 2) if reflections is None else reflections)
        self.scan = Scan()
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        return (self.zeros(batch, self.input.out_features),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        matrix = self.operator()[None, None]
        x, weight, bias = handed(x, self.input)
        record = Cell(ORNN_RULE, x, matrix, input_weight=weight, bias=bias)
        return self.scan(record, state, clock)
