"""Random feature attention: softmax attention's own similarity, estimated, so that its past is a matrix."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.ops.waves import features
from recurra.parts.exponential import mean_of
from recurra.parts.heads import divide
from recurra.shapes import Float, Tensor


class RFA(Mixer):
    r"""Attention by random waves: two vectors are as similar as the waves they meet agree, and memories fade by a gate.

    .. math::
        S_t = g_t S_{t-1} + (1 - g_t)\, \phi(k_t) v_t^\top \qquad
        z_t = g_t z_{t-1} + (1 - g_t)\, \phi(k_t) \qquad
        y_t = W_o \frac{S_t^\top \phi(q_t)}{\max(z_t^\top \phi(q_t), \epsilon)}

    .. math::
        \phi(x) = R^{-1/2} \bigl[\sin(w_1^\top \bar x), \ldots, \sin(w_R^\top \bar x),
        \cos(w_1^\top \bar x), \ldots, \cos(w_R^\top \bar x)\bigr] \qquad
        \bar x = x / \lVert x \rVert \qquad
        w_i = \sigma \odot \tilde w_i,\; \tilde w_i \sim N(0, 1) \qquad
        g_t = \sigma(W_g x_t + b)

    with q, k, v linear in x, one g and :math:`\sigma` a head; :math:`\phi(q)^\top \phi(k)` is in the mean the Gaussian
    kernel. Source: Peng et al. 2021, https://arxiv.org/abs/2103.02143, its gated form (RFA-Gate). Unlike the paper,
    which draws new waves at every training step, they are drawn once and are part of the weights: a state is of its
    waves. The estimate of the denominator may be negative where its truth is small: it is held above
    :math:`\epsilon` = 0.1, of at most 1.

    State: S and z side by side, `(B, H, 2 R, V + 1)`, float32 (float64 if the parameters are), V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        features: waves of each head (R); more are a better estimate.

    Raises:
        ValueError: `heads` does not divide `width`, or `features` is less than 1.
    """

    waves: Tensor
    undecayed = ("spread",)

    def __init__(self, width: int, *, heads: int = 4, features: int = 32) -> None:
        super().__init__()
        at_least(1, features=features)
        self.heads, self.size, self.least = heads, divide(width, heads), 0.1
        self.project = nn.Linear(width, 3 * width)
        self.gate = nn.Linear(width, heads)
        self.spread = nn.Parameter(torch.ones(heads, self.size))
        self.register_buffer("waves", torch.randn(heads, features, self.size))
        self.out = nn.Linear(width, width)
        for weight in (*self.project.weight.split(width), self.out.weight):
            nn.init.xavier_uniform_(weight, gain=2**-0.5)
        nn.init.zeros_(self.out.bias)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        return self.zeros(batch, self.heads, 2 * self.waves.shape[1], self.size + 1)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Project, remember by waves, and divide what is read by the sum of its weights."""
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, self.size)).unbind(2)
        # a value of one beside the others sums the keys: numerator and denominator are one memory
        value = F.pad(value.to(state.dtype), (0, 1), value=1.0)
        gate = self.gate(x).to(state.dtype)
        size = self.waves.shape[1] ** 0.5
        waves = self.spread[:, None] * self.waves
        key = features(key, waves, F.sigmoid(-gate) / size)
        read, state = self.scan(Outer(features(query, waves), key, value, F.logsigmoid(gate)), state, clock)
        # of a query that is not over the root of its size, as its key is: of both sums, so the mean is the same
        return self.out(mean_of(read, self.least * size).flatten(-2).to(x.dtype)), state
