"""RWKV-4."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops.shift import shift
from recurra.parts.exponential import ExponentialSum, mean
from recurra.parts.lerp import TokenShift, fading, looking_back, place, zigzag
from recurra.shapes import Float, State, Tensor


class RWKV4(Mixer):
    r"""Attention whose weights fade at one learned rate a feature, with a bonus for the present step: time mixing.

    .. math::
        y_t = W_o \Bigl(\sigma(r_t) \odot
        \frac{\sum_{j < t} e^{k_j - (t-1-j) w} \odot v_j + e^{u + k_t} \odot v_t}
        {\sum_{j < t} e^{k_j - (t-1-j) w} + e^{u + k_t}}\Bigr) \qquad w = e^{\omega}

    where r, k and v are linear, each in its own blend of x and the x before it,
    :math:`x_t + \mu \odot (x_{t-1} - x_t)`. Peng et al. 2023, https://arxiv.org/abs/2305.13048. The paper's block is
    this and then `channel_mix`: the pattern "rwkv4,channel_mix" with no other MLP. Unlike the authors' code
    :math:`\mu` is the share of the step before, theirs is one less it, and no projection starts at zero.
    State: the last x, `(B, D)`, the largest faded key so far m, `(B, D)`, and the sums of the values and of their
    weights, each over :math:`e^m`, `(B, D, 2)`; float32.

    Args:
        width: features in and out (D).
        layer: which layer of the stack this is, from 0: sets where decays and blends start.
        depth: layers in the stack.

    Raises:
        ValueError: `layer` is not one of `depth`.
    """

    undecayed = ("shift.share",)

    def __init__(self, width: int, *, layer: int = 0, depth: int = 1) -> None:
        super().__init__()
        up, left = place(layer, depth)
        self.shift = TokenShift(
            looking_back(width, left), looking_back(width, left, 0.3 * up), looking_back(width, left / 2)
        )
        self.key, self.value, self.receptance, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.log_rate = nn.Parameter(fading(width, -5.0, 8.0, up))
        self.bonus = nn.Parameter(zigzag(width, 0.5) + torch.tensor(0.3).log())
        self.sum = ExponentialSum()

    def initial_state(self, batch: int) -> State:
        width = len(self.bonus)
        return self.zeros(batch, width), self.zeros(batch, width) - torch.inf, self.zeros(batch, width, 2)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, *sums = state
        real = past.dtype
        blends, past = self.shift(x, past, clock)
        key, value, receptance = (
            project(blend) for project, blend in zip((self.key, self.value, self.receptance), blends, strict=True)
        )
        key, value = key.to(real), value.to(real)[..., None]
        read, scaled, after = self.sum(key, value, -self.log_rate.to(real).exp(), tuple(sums), clock)
        earlier, _ = shift(read.flatten(2), sums[1].flatten(1), clock)
        now = self.bonus + key
        most = torch.maximum(scaled.before, now).detach()
        total = (scaled.before - most).exp()[..., None] * earlier.view_as(read)
        total = total + (now - most).exp()[..., None] * F.pad(value, (0, 1), value=1.0)
        return self.out(F.sigmoid(receptance) * mean(total).flatten(-2).to(x.dtype)), (past, *after)
