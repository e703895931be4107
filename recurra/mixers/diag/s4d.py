"""The diagonal S4."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.state_space import DiagonalStateSpace
from recurra.shapes import Float, Inexact, Tensor


class S4D(Mixer):
    r"""A long memory for every feature: damped waves of fixed frequencies that the feature sets swinging.

    .. math::
        h_t = e^{\Delta A} \odot h_{t-1} + u_t
        \qquad
        s_t = 2 \operatorname{Re} \sum_n c_n \frac{e^{\Delta A_n} - 1}{A_n} h_{tn} + d\, u_t
        \qquad
        y_t = \operatorname{GLU}(W \operatorname{gelu}(s_t) + \beta)

    for every feature by itself, with :math:`A = -e^{\rho} + i \omega`, Gu et al. 2022,
    https://arxiv.org/abs/2206.11893. The starts: "lin" :math:`-\tfrac12 + i \pi n`; "inv"
    :math:`-\tfrac12 + i \tfrac{N}{\pi} (\tfrac{N}{2n+1} - 1)`; "legs" the eigenvalues of the normal part of HiPPO-LegS;
    "real" :math:`-(n + 1)`, with N real states and no factor of 2. Unlike the paper, the weight of the write is applied
    where the state is read, which changes the state's scale and nothing else; B is 1. No kernel as long as the
    sequence is made, so nothing is tied to a length. State: h, `(B, D, N/2)`, complex64; from "real" `(B, D, N)`,
    float32.

    Args:
        width: features in and out (D).
        units: states of each feature (N), each conjugate counted; even, or any number from "real".
        start: where A starts: "lin", "inv", "legs" or "real".

    Raises:
        ValueError: `start` is another, or `units` is odd where states are complex.
    """

    undecayed = ("space.log_rate", "space.frequency")

    def __init__(self, width: int, *, units: int = 64, start: str = "lin") -> None:
        super().__init__()
        self.space = DiagonalStateSpace(width, units, start=start)
        self.out = nn.Linear(width, 2 * width)

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D N"]:
        return self.space.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
        y, state = self.space(x, state, clock)
        return F.glu(self.out(F.gelu(y)), -1), state
