"""The minimal GRU."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor


def _gates(update: Float[Tensor, "..."], candidate: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], ...]:
    """What is kept, and what is written. 1 - z as a sigmoid of its own keeps its precision where z is near 1."""
    return F.sigmoid(-update), F.sigmoid(update) * candidate


GATES = Map("mingru", _gates, 2)


class MinGRU(Mixer):
    r"""A GRU whose gates do not look at its state, so that all steps are one scan.

    .. math::
        z_t = \sigma(W_z x_t + \beta_z) \qquad \tilde h_t = W_h x_t + \beta_h
        \qquad
        h_t = (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t
        \qquad
        y_t = W_o h_t

    Feng et al. 2024, https://arxiv.org/abs/2410.01201. With `positive` the candidate is :math:`g(\tilde h)`,
    :math:`g(u) = u + 1/2` for :math:`u \ge 0`, else :math:`\sigma(u)`: the paper's second form. Unlike the paper that
    form too starts at h = 0 and is scanned as it stands, not through logarithms, which lose precision with length.
    State: h, `(B, N)`, float32.

    Args:
        width: features in and out (D).
        expand: units as a multiple of `width` (N = expand D); with 1 there is no :math:`W_o`, as in the paper.
        positive: keep the state positive by the paper's function g.

    Raises:
        ValueError: `expand` is less than 1.
    """

    def __init__(self, width: int, *, expand: int = 1, positive: bool = False) -> None:
        super().__init__()
        at_least(1, expand=expand)
        self.positive = positive
        self.update = nn.Linear(width, expand * width)
        self.candidate = nn.Linear(width, expand * width)
        self.out = nn.Linear(expand * width, width, bias=False) if expand > 1 else nn.Identity()
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B N"]:
        return self.zeros(batch, self.update.out_features)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B N"]]:
        update, candidate = self.update(x), self.candidate(x)
        if self.positive:
            candidate = torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())
        read, state = self.scan(Diag(*pointwise(GATES, update, candidate)), state, clock)
        return self.out(read), state
