"""RWKV-4."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.parts.exponential import Stabiliser
from recurra.parts.lerp import TokenShift, fading, looking_back, place, zigzag
from recurra.shapes import Float, State, Tensor


def _read(
    value: Tensor, key: Tensor, receptance: Tensor, values: Tensor, weights: Tensor, before: Tensor, bonus: Tensor
) -> Tensor:
    """The mean of the earlier values, whose sums are over e^before, and of the present one with its bonus, gated."""
    now = bonus + key
    most = torch.maximum(before, now).detach()
    old, new = (before - most).exp(), (now - most).exp()
    return F.sigmoid(receptance) * (old * values + new * value) / (old * weights + new)


READ = Map("rwkv4", _read)


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
        self.stabiliser, self.scan = Stabiliser(), Scan()

    def initial_state(self, batch: int) -> State:
        width = len(self.bonus)
        return self.zeros(batch, width), self.zeros(batch, width) - torch.inf, self.zeros(batch, width, 2)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, peak, sums = state
        real = past.dtype
        blends, past = self.shift(x, past, clock)
        key, value, receptance = (
            project(blend) for project, blend in zip((self.key, self.value, self.receptance), blends, strict=True)
        )
        key, value = key.to(real), value.to(real)
        scaled, peak = self.stabiliser(key, -self.log_rate.to(real).exp(), peak, clock)
        decay = scaled.log_decay.exp()
        earlier, last = [], []
        # apart: side by side their decays would have to be written twice
        for write, first in zip((scaled.weight * value, scaled.weight), sums.unbind(-1), strict=True):
            sum_now, sum_last = self.scan(Diag(decay, write), first, clock)
            earlier.append(shift(sum_now, first, clock)[0])
            last.append(sum_last)
        y = pointwise(READ, value, key, receptance, *earlier, scaled.before, self.bonus)
        return self.out(y.to(x.dtype)), (past, peak, torch.stack(last, -1))
