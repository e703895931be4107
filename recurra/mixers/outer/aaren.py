"""Aaren: attention as a recurrent network."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.exponential import ExponentialSum, mean
from recurra.parts.heads import divide
from recurra.shapes import Float, State, Tensor


class Aaren(Mixer):
    r"""Softmax attention with one learned query, which is a mean over the past that can be kept up step by step.

    .. math::
        y_t = W_o \frac{\sum_{j \le t} e^{s_j} v_j}{\sum_{j \le t} e^{s_j}} \qquad s_j = K^{-1/2}\, q^\top k_j

    in each head, with k, v linear in x and q a parameter. Feng et al. 2024, https://arxiv.org/abs/2405.13956. Where a
    step lies is known only by what came before it, as in the paper. Projections have no bias.
    State: the largest score so far m, `(B, H)`, and the sums of the values and of their weights side by side, each
    over :math:`e^m`, `(B, H, V + 1)` with V = width / heads; float32.

    Args:
        width: features in and out (D).
        heads: independent means (H); divides `width`.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    undecayed = ("query",)

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(heads, divide(width, heads)))
        self.project = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.sum = ExponentialSum()

    def initial_state(self, batch: int) -> State:
        heads, size = self.query.shape
        return self.zeros(batch, heads) - torch.inf, self.zeros(batch, heads, size + 1)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        heads, size = self.query.shape
        key, value = self.project(x).to(state[0].dtype).unflatten(-1, (2, heads, size)).unbind(2)
        score = (key * self.query).sum(-1) * size**-0.5
        sums, _, state = self.sum(score, value, torch.zeros_like(score[0, 0]), state, clock)
        return self.out(mean(sums).flatten(-2).to(x.dtype)), state
