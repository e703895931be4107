"""Comba: the delta rule as closed-loop control, which corrects what is stored and also what is asked."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import LowRank, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.conv import ShortConvolution
from recurra.parts.delta import Fading, size_of
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

DeltaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K V"]]


def _squares(query: Tensor, key: Tensor, write: Tensor, erasure: Tensor, correction: Tensor) -> tuple[Tensor, Tensor]:
    return (query - correction * key).square(), key.square()


def _close(
    query: Tensor,
    key: Tensor,
    write: Tensor,
    erasure: Tensor,
    correction: Tensor,
    queries: Tensor,
    keys: Tensor,
    count: Tensor | int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query and key of their lengths, what is written, and what is erased."""
    query = (query - correction * key) * (count * (queries + 1e-6)).rsqrt()
    key = key * (keys + 1e-6).rsqrt()
    written = write.sigmoid() * key
    return query, key, written, -erasure.sigmoid() * written


CLOSE = Map("comba", _close, 4, sums=_squares)


class Comba(Mixer):
    r"""A fading memory that takes away part of what a key recalls before it writes, and asks for less of that key.

    .. math::
        S_t = \alpha_t S_{t-1} - \tilde\beta_t k_t k_t^\top S_{t-1} + \beta_t k_t v_t^\top \qquad
        y_t = W_o \bigl(\operatorname{norm}(K^{-1/2} S_t^\top q_t) \odot \sigma(W_g x_t)\bigr)
    .. math::
        \alpha_t = \exp(-e^{a} \operatorname{softplus}(W_\alpha x_t + b)) \qquad
        \beta_t = \sigma(W_\beta x_t) \qquad \tilde\beta_t = \sigma(c)\, \beta_t \qquad
        q_t = \frac{q'_t - d\, k'_t}{\lVert q'_t - d\, k'_t \rVert} \qquad k_t = \frac{k'_t}{\lVert k'_t \rVert}

    with q', k', v linear in x, then a short convolution with SiLU, lengths with 1e-6 inside the root; one
    :math:`\alpha` and :math:`\beta` a head, of which a, b, c and d are the head's own; norm an RMSNorm of each head.
    The erasure reads the memory before it fades: the transition is a scalar plus a matrix of rank one, and not, as in
    Gated DeltaNet, their product. Source: Hu et al. 2025, https://arxiv.org/abs/2506.02475. As in the paper. Unlike
    the authors' code, which brings :math:`\sigma(c) k` to length one again, c weakens the erasure; there d is two
    factors, one of them :math:`\sigma(c)`.

    State: the convolution's past, `(B, conv_size - 1, heads * (2 K + V))`, and the memory S, `(B, H, K, V)` with
    V = expand K; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H).
        head_size: features of a key (K); None: width / heads.
        expand: values are this many times as wide as keys.
        correction: where d starts. The authors find 0.02 better in models of 340M parameters, 1 in larger ones.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: there is no `head_size` and `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        expand: int = 2,
        correction: float = 0.02,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.heads, self.size = heads, size_of(width, heads, head_size)
        keys, values = heads * self.size, expand * heads * self.size
        self.mixed = [keys, keys, values]
        self.splits = [sum(self.mixed), values, heads, heads]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.conv = ShortConvolution(sum(self.mixed), size=conv_size, bias=False)
        self.erasure, self.correction = nn.Parameter(torch.ones(heads)), nn.Parameter(torch.full((heads,), correction))
        self.fading = Fading(heads)
        self.norm = RMSNorm(values // heads)
        self.out = nn.Linear(values, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> DeltaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, len(self.norm.weight))

    def mix(self, x: Float[Tensor, "B T D"], state: DeltaState, clock: Clock | None) -> tuple[Tensor, DeltaState]:
        """Project, convolve, correct query and memory, normalise, then gate."""
        past, memory = state
        mixed, gate, write, forget = self.project(x).split(self.splits, -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed, -1))
        query, key, value, write = (part.to(memory.dtype) for part in (query, key, value, write))
        shares = (part.to(memory.dtype)[:, None].expand(-1, self.size) for part in (self.erasure, self.correction))
        query, key, written, erase = pointwise(CLOSE, query, key, write[..., None], *shares)
        record = LowRank(query, written, value, key, erase, self.fading(forget))
        read, memory = self.scan(record, memory, clock)
        return self.out(self.norm.gated(read, gate, torch.sigmoid)), (past, memory)
