"""The MinMax recurrent neural cascade."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import MIN_MAX, Diag, Scan
from recurra.ops.shift import shift
from recurra.parts.gates import opened
from recurra.parts.init import shallow_, small_
from recurra.shapes import Float, State, Tensor


class MinMax(Mixer):
    r"""A memory that is only ever replaced, never blended: each unit is held between a ceiling and a floor.

    .. math::
        c_t = W_c\,[\operatorname{norm}(u_{t-1}), \operatorname{norm}(u_t)]
        \qquad
        f_t = W_d\,(\operatorname{relu}(a_t) \odot b_t) \quad (a_t, b_t) = W_u \operatorname{norm}(u_t + c_t)
        \\
        v_t = \operatorname{norm}(u_t + c_t + f_t)
        \qquad
        h_t = \max(\min(W_r v_t, h_{t-1}), W_s v_t)
        \qquad
        y_t = W_o\,(h_t \odot \sigma(W_g v_t))

    Ronca 2026, https://arxiv.org/abs/2605.06384. Every map has a bias and every norm is a layer norm of its own. The
    recurrence rounds nothing and its gradient neither fades nor grows. The two inner maps c and f feed only the units:
    what is added to the residual stream is y alone, and the block around this layer adds it. Unlike the authors'
    package there is no dropout and the mix with the step before is always the linear one. State: the last normed
    input `(B, D)` and h `(B, N)`, float32; h starts at 0.

    Args:
        width: features in and out (D).
        units: min-max units (N); as many as `width` if not given.
        feed: inner features of f as a multiple of `width`, rounded up to an even number.
        stack: blocks in the whole model: the more, the smaller what each adds at the start.
        asymmetric: start with floors of about 1 and low ceilings, so that every unit is written to at once.
            Otherwise both start small and alike, and a unit whose ceiling is above 0 and floor below it keeps its 0.
    """

    def __init__(
        self,
        width: int,
        *,
        units: int | None = None,
        feed: float = 1.3,
        stack: int = 4,
        asymmetric: bool = False,
    ) -> None:
        super().__init__()
        units, inner = width if units is None else units, 2 * math.ceil(feed * width / 2)
        self.norm_shift, self.norm_feed, self.norm_units = (nn.LayerNorm(width) for _ in range(3))
        self.mix_shift = nn.Linear(2 * width, width)
        self.up, self.down = nn.Linear(width, 2 * inner), nn.Linear(inner, width)
        self.ceiling, self.floor, self.gate = (nn.Linear(width, units) for _ in range(3))
        self.out = nn.Linear(units, width)
        self.scan = Scan()
        for linear in (self.mix_shift, self.up, self.ceiling, self.floor, self.gate):
            small_(linear.weight)
        for linear in (self.down, self.out):
            shallow_(linear.weight, stack)
        for linear in (self.mix_shift, self.up, self.down, self.ceiling, self.floor, self.gate, self.out):
            nn.init.zeros_(linear.bias)
        if asymmetric:
            nn.init.kaiming_uniform_(self.floor.weight, a=math.sqrt(5))
            nn.init.ones_(self.floor.bias)

    def initial_state(self, batch: int) -> State:
        return self.zeros(batch, self.out.out_features), self.zeros(batch, self.out.in_features)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, h = state
        normed = self.norm_shift(x)
        before, past = shift(normed, past, clock)
        x = x + self.mix_shift(torch.cat([before, normed], -1))
        value, gate = self.up(self.norm_feed(x)).chunk(2, -1)
        x = self.norm_units(x + self.down(F.relu(value) * gate))
        read, h = self.scan(Diag(self.ceiling(x), self.floor(x), MIN_MAX), h, clock)
        return self.out(opened(read, self.gate(x))), (past, h)
