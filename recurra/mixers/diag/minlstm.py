"""The minimal LSTM."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor


def _gates(
    forget: Float[Tensor, "..."], write: Float[Tensor, "..."], candidate: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], ...]:
    """The forget gate's share of both, and what the input gate's share writes."""
    # 1 / sigmoid(a) is 1 + e^-a: all over the largest of these exponentials, so that the largest is 1
    least = torch.minimum(forget, write).clamp(max=0).detach()
    kept, given = (least.exp() + (least - other).exp() for other in (write, forget))
    return kept / (kept + given), given / (kept + given) * candidate


GATES = Map("minlstm", _gates, 2)


class MinLSTM(Mixer):
    r"""An LSTM whose gates do not look at its state and share what they let through, so that all steps are one scan.

    .. math::
        f_t = \sigma(W_f x_t + \beta_f) \qquad i_t = \sigma(W_i x_t + \beta_i) \qquad
        h_t = \frac{f_t}{f_t + i_t} \odot h_{t-1} + \frac{i_t}{f_t + i_t} \odot (W_h x_t + \beta_h)
        \qquad y_t = h_t

    Feng et al. 2024, https://arxiv.org/abs/2410.01201. The shares are computed of the gates' inputs a as
    :math:`f / (f + i) = (1 + e^{-a_i}) / (2 + e^{-a_i} + e^{-a_f})`, which stays exact where both gates close.
    Unlike the paper's second form the candidate is not made positive and nothing is scanned through logarithms.
    State: h, `(B, D)`, float32.

    Args:
        width: features in and out (D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forget, self.input, self.candidate = (nn.Linear(width, width) for _ in range(3))
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B D"]:
        return self.zeros(batch, self.candidate.out_features)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B D"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
        kept = pointwise(GATES, self.forget(x), self.input(x), self.candidate(x))
        return self.scan(Diag(*kept), state, clock)
