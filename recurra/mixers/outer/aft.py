"""The attention-free transformer."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.parts.exponential import Stabiliser
from recurra.shapes import Float, State, Tensor


def _read(query: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    return F.sigmoid(query) * values / weights


READ = Map("aft", _read)


class AFT(Mixer):
    r"""Attention whose weights depend on the key alone: a running mean of the values of every feature by itself.

    .. math::
        y_t = W_o \Bigl(\sigma(q_t) \odot
        \frac{\sum_{j \le t} e^{k_j + w_{t-j}} \odot v_j}{\sum_{j \le t} e^{k_j + w_{t-j}}}\Bigr)

    with q, k, v linear in x and w zero beyond the window. Zhai et al. 2021, https://arxiv.org/abs/2105.14103. With no
    window this is AFT-simple. Unlike the paper's AFT-local the bias w is of a distance, not of two positions, which
    would tie the layer to one length: it is the paper's AFT-conv in one dimension, with a single head. Projections have
    no bias. State: the largest key so far m, `(B, D)`, the sums of the values and of their weights, each over
    :math:`e^m`, `(B, D, 2)`, and the last `window` terms of these sums, `(B, 2 D)` each; float32.

    Args:
        width: features in and out (D).
        window: how many distances, from 0, have a learned bias.

    Raises:
        ValueError: `window` is negative.
    """

    def __init__(self, width: int, *, window: int = 0) -> None:
        super().__init__()
        at_least(0, window=window)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(window)) if window else None
        self.out = nn.Linear(width, width, bias=False)
        self.stabiliser, self.scan = Stabiliser(), Scan()

    def initial_state(self, batch: int) -> State:
        width, window = self.out.in_features, 0 if self.bias is None else len(self.bias)
        recent = tuple(self.zeros(batch, 2 * width) for _ in range(window))
        return self.zeros(batch, width) - torch.inf, self.zeros(batch, width, 2), recent

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        peak, sums, recent = state
        query, key, value = (part.to(sums.dtype) for part in self.project(x).chunk(3, -1))
        scaled, peak = self.stabiliser(key, torch.zeros_like(key[0, 0]), peak, clock)
        decay = scaled.log_decay.exp()
        # values and weights apart: side by side their decays would have to be written twice
        terms: list[Tensor] = [scaled.weight * value, scaled.weight]
        near, kept = [torch.zeros_like(decay[:, :1])] * 2, []
        # a term joins the sums when it leaves the window, so that its bias needs never be taken back
        for bias, past in zip(() if self.bias is None else self.bias.to(sums.dtype).exp(), recent, strict=True):
            near = [sum_near + bias * term for sum_near, term in zip(near, terms, strict=True)]
            pasts = past.view_as(sums).unbind(-1)
            late, pasts = zip(
                *(shift(term, first, clock) for term, first in zip(terms, pasts, strict=True)), strict=True
            )
            terms = [decay * term for term in late]
            kept.append(torch.stack(pasts, -1).flatten(1))
        parts = zip(terms, sums.unbind(-1), strict=True)
        far, last = zip(*(self.scan(Diag(decay, term), first, clock) for term, first in parts), strict=True)
        both = far if self.bias is None else map(torch.add, near, far)
        read = pointwise(READ, query, *both).to(x.dtype)
        return self.out(read), (peak, torch.stack(last, -1), tuple(kept))
