"""A recurrent network that attends to its own recent past, by weights that its hidden states write and that fade."""

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, Settle
from recurra.shapes import Float, Tensor


class FastWeightsRNN(Mixer):
    r"""A recurrent network whose hidden state is drawn, a few times a step, towards its recent states that are like it.

    .. math::
        A_t = \lambda A_{t-1} + \eta\, h_{t-1} h_{t-1}^\top \qquad
        u_t = W h_{t-1} + C x_t + b \qquad h^0_t = \operatorname{relu}(u_t)

    .. math::
        h^{s+1}_t = \operatorname{relu}(\operatorname{norm}(u_t + A_t h^s_t)) \qquad y_t = h_t = h^S_t

    with norm a layer norm. :math:`A_t h = \eta \sum_{j<t} \lambda^{t-1-j} h_j (h_j^\top h)` is attention to the past
    with no keys but the states themselves. Source: Ba et al. 2016, https://arxiv.org/abs/1610.06258. As in the paper,
    W starting at 0.05 times the identity.

    State: (h, A), `(B, D)` and `(B, D * D)`, rows end to end, float32 (float64 if the parameters are).

    Args:
        width: features in and out, and units (D).
        decay: :math:`\lambda`, in [0, 1): what a step leaves of the fast weights.
        rate: :math:`\eta`: how fast they are written.
        loops: times that the state looks at the past in each step (S).

    Raises:
        ValueError: `decay` is outside [0, 1), or `loops` is less than 1.
    """

    undecayed = ("norm",)

    def __init__(self, width: int, *, decay: float = 0.95, rate: float = 0.5, loops: int = 1) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be at least 0 and below 1, or the weights grow for ever")
        at_least(1, loops=loops)
        self.decay, self.rate, self.loops = decay, rate, loops
        self.input = nn.Linear(width, width)
        self.recurrent = nn.Parameter(0.05 * torch.eye(width))
        self.norm = nn.Parameter(torch.stack([torch.ones(width), torch.zeros(width)]))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        """No state, no weights: zeros."""
        width = len(self.recurrent)
        return self.zeros(batch, width), self.zeros(batch, width * width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        """One step after another: what is written depends on what was read."""
        record = Settle(self.input(x), self.recurrent, self.norm, self.decay, self.rate, self.loops)
        return self.scan(record, state, clock)
