"""Self-attention with recurrence."""

import math

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.parts.heads import divide
from recurra.parts.kept import attend_kept
from recurra.parts.rotary import count
from recurra.shapes import Bool, Float, Inexact, State, Tensor


class RSA(Mixer):
    r"""Softmax attention beside a linear recurrence over the same values, and a gate a head that says how much of each.

    .. math::
        y_t = W_o \Bigl((1 - \sigma(\mu)) \sum_{j \le t} \operatorname{softmax}_j(K^{-1/2} q_t^\top k_j)\, v_j
        + \sigma(\mu) \sum_{j < t} p_{t-j}\, v_j\Bigr)
        \qquad
        p_n = \lambda^n, \quad \gamma^n \cos n \theta \quad \text{or} \quad \gamma^n \sin n \theta

    in each head, with q, k, v linear in x, :math:`\lambda = \tanh \eta` for regular heads and
    :math:`\gamma = \sigma(\nu)` for cyclical ones. Dilated by d, p at a distance of n d is what it was at n, and zero
    between. Huang et al. 2023, https://openreview.net/forum?id=7YfHla7IxBJ. Unlike the paper the heads of a layer share
    one dilation, and each has a gate of its own. Where :math:`\eta, \nu, \theta` and :math:`\mu` start is as far as
    known from others' code: unverified.
    State: keys and values `(B, S, H, K)`, each row's own first and zeros after them, and how many are its own `(B,)`;
    and the recurrence's h, `(B, H, d, K)`, complex64; the others float32. S grows with the sequence; h does not.

    Args:
        width: features in and out (D).
        heads: H; divides `width`.
        cyclical: how many of the heads, the last ones, are so: cosine and sine in turn.
        dilation: the recurrences see every d-th step before the present one.

    Raises:
        ValueError: `heads` does not divide `width`, `cyclical` is not between 0 and `heads`, or `dilation` is less
            than 1.
    """

    grows = True

    def __init__(self, width: int, *, heads: int = 4, cyclical: int = 2, dilation: int = 1) -> None:
        super().__init__()
        if not 0 <= cyclical <= heads:
            raise ValueError(f"cyclical is {cyclical}: it must be between 0 and heads, which is {heads}")
        at_least(1, dilation=dilation)
        regular = heads - cyclical
        self.heads, self.size, self.dilation = heads, divide(width, heads), dilation
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.regular = nn.Parameter((1 + torch.rand(regular)) * (-1.0) ** torch.arange(regular))
        self.cyclical = nn.Parameter(1 + torch.rand(cyclical))
        self.angle = nn.Parameter(torch.full((cyclical,), math.pi / 4))
        self.balance = nn.Parameter(6 * torch.rand(heads) - 3)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        nothing = self.zeros(batch, 0, self.heads, self.size)
        h = self.zeros(batch, self.heads, self.dilation, self.size)
        return (nothing, nothing, torch.zeros(batch, dtype=torch.long, device=h.device)), torch.complex(h, h)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        kept, h = state
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        _, counted = count(kept[2], x.shape[1], clock)
        attended, kept = attend_kept(query, key, value, kept, counted, clock)
        value = value.to(kept[0].dtype)
        drive = torch.complex(value, torch.zeros_like(value))[..., None, :].expand(-1, -1, -1, self.dilation, -1)
        read, h = self.scan(Diag(self._decay(value)[..., None].expand(drive.shape[2:]), drive), h, clock)
        read = read.mean(-2)
        # the present step is the attention's alone
        recurred = torch.where(self._sine(x)[:, None], read.imag, read.real - value)
        balance = self.balance.to(value.dtype).sigmoid()[:, None]
        return self.out(((1 - balance) * attended + balance * recurred).flatten(-2).to(x.dtype)), (kept, h)

    def _decay(self, like: Tensor) -> Inexact[Tensor, "H d"]:
        """The factors of one step, whose d-th power is the head's own: their mean vanishes between its multiples."""
        regular, cyclical, angle = (p.to(like.dtype) for p in (self.regular, self.cyclical, self.angle))
        size = torch.cat([regular.tanh().abs(), cyclical.sigmoid()]) ** (1 / self.dilation)
        angle = torch.cat([math.pi * (regular < 0).to(like.dtype), angle])
        angle = angle[:, None] + 2 * math.pi * torch.arange(self.dilation, dtype=like.dtype, device=like.device)
        return torch.polar(size[:, None].expand_as(angle), angle / self.dilation)

    def _sine(self, like: Tensor) -> Bool[Tensor, " H"]:
        """Which heads read the imaginary part."""
        place = torch.arange(self.heads, device=like.device) - len(self.regular)
        return (place >= 0) & (place % 2 == 1)
