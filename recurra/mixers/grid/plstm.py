"""The parallelizable LSTM on a sequence: what the networks of grids and graphs beside it are on a chain."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.steps import blank
from recurra.parts.conv import ShortConvolution
from recurra.parts.init import small_
from recurra.parts.marks import Marks, transition
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor, wide

State = tuple[Float[Tensor, "B H K V"], Float[Tensor, "B J D"]]


def _product(
    query: Tensor, key: Tensor, value: Tensor, asked: Tensor, written: Tensor, direct: Tensor
) -> tuple[Tensor]:
    return (query * key,)


def _marked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    asked: Tensor,
    written: Tensor,
    direct: Tensor,
    product: Tensor,
    count: Tensor | int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query and key by their gates, and what a step reads of what it brings."""
    return asked * query, written * key, direct * product * value


MARKED = Map("marked", _marked, 3, _product)


def _squares(read: Tensor, passing: Tensor, weight: Tensor) -> tuple[Tensor]:
    return ((read + passing).square(),)


def _normal(
    read: Tensor, passing: Tensor, weight: Tensor, squares: Tensor, count: Tensor | int, epsilon: float
) -> Tensor:
    return (read + passing) * (squares / count + epsilon).rsqrt() * weight


class PLSTM(Mixer):
    r"""A matrix memory on the way from each step to the next, with gates for what enters, goes on, and is read.

    .. math::
        C_t = T_t C_{t-1} + S_t\, k_t v_t^\top
        \qquad
        o_t = (M_t C_{t-1} + D_t\, k_t v_t^\top)^\top q_t / \sqrt{K}
    .. math::
        S_t, M_t, D_t = \sigma(W c_t + b) \qquad T_t = \tanh 5 (w^\top c_t + b_T) \qquad
        y_t = W_o \operatorname{rms}(o_t) + p \odot c_t

    by heads, with c the causal short convolution of x, queries and keys from c, values from x. A transition may be
    negative: it turns the sign of what is kept. Pöppel et al. 2025, https://arxiv.org/abs/2506.11997. On a sequence
    each step has one way in and one way out, so that the directed and the diffusive mode, P and D, are the same; both
    are in `recurra.mixers.grid.plane` and `recurra.mixers.grid.graph`. Unlike the authors' code transitions are
    numbers, not matrices, gates see c, and every head is projected from all features.
    State: (C, inputs of the convolution), `(B, H, K, V)` and `(B, 3, D)`, float32.

    Args:
        width: features in and out (D).
        heads: memories side by side (H); divides `width`.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        self.conv = ShortConvolution(width, silu=False)
        self.marks = Marks(width, heads, gates=3)
        self.transition = nn.Linear(width, heads)
        self.norm = RMSNorm(width, groups=heads)
        self.out = nn.Linear(width, width, bias=False)
        self.passthrough = nn.Parameter(torch.ones(width))
        nn.init.zeros_(self.transition.weight)
        nn.init.ones_(self.transition.bias)
        small_(self.out.weight)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        heads, size = self.marks.heads, self.marks.size
        return self.zeros(batch, heads, size, size), self.conv.initial_state(batch)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        memory, past = state
        seen, past = self.conv(x, past, clock)
        query, key, value, (source, mark, direct) = self.marks(seen, x)
        through = transition(self.transition(seen).to(wide(x)))
        if clock is not None and clock.valid is not None:
            through = blank(clock.valid, through, 1.0)
        # a decay has no sign: it is kept apart, as the sign of all that was written before
        sign = torch.where(through < 0, -1.0, 1.0).to(through.dtype)
        turned = sign.cumprod(1)
        log_decay = through.abs().clamp(min=torch.finfo(through.dtype).tiny).log()
        shares = mark * turned * sign, source * turned, direct.to(turned.dtype)
        query, key, value = (part.to(turned.dtype) for part in (query, key, value))
        asked, written, passing = pointwise(MARKED, query, key, value, *(share[..., None] for share in shares))
        read, memory = self.scan(Outer(asked, written, value, log_decay, before=True), memory, clock)
        way = Map("plstm_norm", _normal, 1, _squares, constants=(self.norm.epsilon,))
        normal = pointwise(way, read, passing, self.norm.weight.unflatten(-1, (self.marks.heads, -1)))
        y = torch.addcmul(self.out(normal.flatten(-2).to(x.dtype)), self.passthrough, seen)
        return y, (turned[:, -1, :, None, None] * memory, past)
