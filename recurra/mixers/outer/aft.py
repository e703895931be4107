"""The attention-free transformer."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.shift import shift
from recurra.parts.exponential import Stabiliser, mean
from recurra.shapes import Float, State, Tensor


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
        query, key, value = self.project(x).chunk(3, -1)
        key, value = key.to(sums.dtype), value.to(sums.dtype)
        scaled, peak = self.stabiliser(key, torch.zeros_like(key[0, 0]), peak, clock)
        keep = scaled.log_decay.exp()[..., None].expand(*key.shape, 2)
        # a term joins the sum when it leaves the window, so that its bias needs never be taken back
        term = scaled.weight[..., None] * F.pad(value[..., None], (0, 1), value=1.0)
        near, kept = torch.zeros_like(term), []
        for bias, past in zip(() if self.bias is None else self.bias.to(sums.dtype).exp(), recent, strict=True):
            near = near + bias * term
            late, past = shift(term.flatten(2), past, clock)
            term = keep * late.view_as(term)
            kept.append(past)
        far, sums = self.scan(Diag(keep, term), sums, clock)
        read = mean(near + far).flatten(-2).to(x.dtype)
        return self.out(F.sigmoid(query) * read), (peak, sums, tuple(kept))
