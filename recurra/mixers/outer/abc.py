"""Attention with bounded memory: attention over a fixed number of slots, each a mean that a control vector weighs."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import LOG_SUM, Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.heads import divide
from recurra.parts.slots import SlotState, attend_slots
from recurra.shapes import Float, Tensor

ABCState = tuple[Float[Tensor, "B H M"], SlotState]


def _share(control: Tensor, total: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """What a slot takes in, e^(s - z), and the logarithm of what is left of it; a first step takes in all."""
    share = (control - total).clamp(max=-least)
    return share.exp(), torch.log(-torch.expm1(share))


class ABC(Mixer):
    r"""Softmax attention over M slots of memory; a slot is the mean of the past, weighed by what each step asked of it.

    .. math::
        z_t = \log \sum_{j \le t} e^{s_j} \qquad
        \tilde K_t = \sum_{j \le t} e^{s_j - z_t} k_j^\top \qquad
        \tilde V_t = \sum_{j \le t} e^{s_j - z_t} v_j^\top \qquad
        y_t = W_o \tilde V_t^\top \operatorname{softmax}(K^{-1/2} \tilde K_t q_t)

    with q, k, v and the control vectors s, one number a slot, linear in x. Source: Peng et al. 2021 (attention with
    bounded-memory control), https://arxiv.org/abs/2110.02488, its learned control. Unlike the paper's, the sums
    are run as means, by :math:`z_{t-1} - z_t` as the log-decay, which never overflows. Its gated successor is `gsa`.

    State: z, `(B, H, M)`, minus infinity before the first step; the slots' keys, `(B, H, M, K)`, and their values,
    `(B, H, M, V)`; float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: that attend each by itself (H); divides `width`.
        slots: of each head (M); None: as many as a key has features.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 4, slots: int | None = None) -> None:
        super().__init__()
        self.heads, self.size = heads, divide(width, heads)
        self.slots = self.size if slots is None else slots
        self.project = nn.Linear(width, 3 * width + heads * self.slots, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.total, self.address, self.content = Scan(), Scan(), Scan()

    def initial_state(self, batch: int) -> ABCState:
        """Empty slots."""
        keys, values = (self.zeros(batch, self.heads, self.slots, self.size) for _ in range(2))
        return torch.full_like(keys[..., 0], -torch.inf), (keys, values)

    def mix(self, x: Float[Tensor, "B T D"], state: ABCState, clock: Clock | None) -> tuple[Tensor, ABCState]:
        """Project, weigh, look for slots, read them."""
        total, slots = state
        parts = self.project(x).split([*3 * [x.shape[-1]], self.heads * self.slots], -1)
        query, key, value, control = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        control = control.to(total.dtype)
        totals, total = self.total(Diag(torch.zeros_like(control[0, 0]), control, LOG_SUM), total, clock)
        share = Map("abc", _share, 2, constants=(torch.finfo(totals.dtype).eps,))
        write, log_decay = pointwise(share, control, totals)
        query = query * query.shape[-1] ** -0.5
        read, slots = attend_slots(self.address, self.content, query, key, value, write, log_decay, slots, clock)
        return self.out(read.flatten(-2)), (total, slots)
