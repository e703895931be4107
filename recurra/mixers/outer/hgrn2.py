"""HGRN2: a gated linear recurrence whose state is widened by an outer product, so that it becomes a matrix."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.bounds import lower_bound as bound_of
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor


class HGRN2(Mixer):
    r"""A memory in which how much a channel forgets is how much of it is written: one gate says both.

    .. math::
        f_t = \gamma + (1 - \gamma)\, \sigma(W_f x_t) \qquad
        S_t = \operatorname{diag}(f_t)\, S_{t-1} + (1 - f_t)\, (W_i x_t)^\top \qquad
        y_t = W_o \operatorname{norm}(S_t^\top \operatorname{swish}(W_q x_t))

    with norm an RMSNorm over all heads together. Source: Qin et al. 2024 (HGRN2), https://arxiv.org/abs/2404.07904.
    Unlike the paper the lower bound :math:`\gamma` is a number, where the authors' shares of the layers start, and is
    not learned by all layers together. It grows with depth, so that upper layers remember longer.

    State: the memory S, `(B, H, K, V)`, float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`. Fewer heads, more state: width^2 / heads numbers.
        lower_bound: :math:`\gamma`, in [0, 1): no channel forgets more than this leaves; None: layer / depth.
        layer: which layer of the stack this is, from 0.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, `lower_bound` is outside [0, 1), or `layer` is not one of `depth`.
    """

    def __init__(
        self, width: int, *, heads: int = 4, lower_bound: float | None = None, layer: int = 0, depth: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.size = heads, divide(width, heads)
        self.lower_bound = bound_of(lower_bound, layer, depth)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.norm = RMSNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        return self.zeros(batch, self.heads, self.size, self.size)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Project, remember, then normalise."""
        query, forget, value = self.project(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        forget = forget.to(state.dtype)
        log_decay = F.logsigmoid(forget)
        if self.lower_bound:
            low = torch.full_like(log_decay, math.log(self.lower_bound))
            log_decay = torch.logaddexp(low, math.log1p(-self.lower_bound) + log_decay)
        # 1 - f as a sigmoid of its own keeps its precision where f is near 1
        key = (1 - self.lower_bound) * F.sigmoid(-forget)
        read, state = self.scan(Outer(F.silu(query), key, value, log_decay), state, clock)
        return self.out(self.norm(read.flatten(-2))), state
