"""A gated recurrent network over a memory of polynomials: HiPPO."""

import math

import torch
from torch import nn

from recurra.checks import at_least, one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Projection, Scan
from recurra.ops.projection import rules
from recurra.ops.steps import blank
from recurra.parts.hippo import legs, legt
from recurra.shapes import Float, State, Tensor, wide

MEASURES = {"legs": legs, "legt": legt}


class HiPPO(Mixer):
    r"""A gated network that sees, at every step, the polynomial closest to all that it has fed its memory so far.

    .. math::
        u_t = W_u x_t + R_u h_{t-1} \qquad
        g_t = \sigma(W_g x_t + M_g m_t + \beta_g) \qquad
        y_t = h_t = (1 - g_t) \odot h_{t-1} + g_t \odot \tanh(W_h x_t + M_h m_t + \beta_h)
    .. math::
        \text{legs:}\; \dot m = \tfrac{1}{t} (A m + b\, u)
        \qquad \text{legt:}\; \dot m = \tfrac{1}{\theta} (A m + b\, u)

    u is held for a time `dt`, 1 where the clock does not give one, and the memory moves on exactly. "legs" weighs all
    of the past alike, whatever its length: t is the time since the sequence began, part of the state, and the first
    step fills the memory with its u. "legt" keeps the last :math:`\theta`. Gu et al. 2020,
    https://arxiv.org/abs/2008.07669. Unlike the paper the memory is discretised by zero-order hold, where it has the
    trapezoid's rule, so that its first polynomial is the mean of u exactly; and it may keep several numbers.
    State: (h, m), `(B, D)` and `(B, M, N)`, float32; for "legs" also t, `(B,)`, float64.

    Args:
        width: features in and out, and of the hidden state (D).
        measure: "legs" or "legt".
        order: polynomials (N).
        window: :math:`\theta` of "legt", in the clock's unit of time: steps where it has none. None: 256.
        channels: numbers that are remembered (M).

    Raises:
        ValueError: `measure` is another, `order` or `channels` is less than 1, `window` is not greater than 0, or it is
            given to "legs".
    """

    timed = True

    def __init__(
        self, width: int, *, measure: str = "legs", order: int = 32, window: float | None = None, channels: int = 1
    ) -> None:
        super().__init__()
        one_of(MEASURES, measure=measure)
        if measure == "legs" and window is not None:
            raise ValueError(f"window is {window}: legs has none, it keeps all of the past")
        at_least(1, order=order, channels=channels)
        if window is not None and not 0 < window < math.inf:
            raise ValueError(f"window is {window}: it must be a time greater than 0")
        self.measure, self.order, self.window = measure, order, 256.0 if window is None else window
        self.feed = nn.Linear(width, channels, bias=False)
        self.feed_hidden = nn.Parameter(torch.empty(channels, width))
        # the gate, then what is new
        self.drive = nn.Linear(width, 2 * width)
        self.recur_memory = nn.Parameter(torch.empty(2 * width, channels * order))
        for weight in (self.feed.weight, self.feed_hidden, self.drive.weight, self.recur_memory):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.drive.bias)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        channels, width = self.feed_hidden.shape
        cell = self.zeros(batch, width), self.zeros(batch, channels, self.order)
        return cell if self.measure == "legt" else (*cell, self.zeros(batch).double())

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        real = wide(x, self.feed_hidden)
        dt = x.new_ones(x.shape[:2]) if clock is None or clock.dt is None else clock.dt
        *cell, elapsed = (*state, None) if self.measure == "legt" else state
        span = dt / self.window
        if elapsed is not None:
            span, elapsed = _stretches(dt, elapsed, clock)
        generator = MEASURES[self.measure](self.order).to(x.device, real)
        weights = (self.feed_hidden, None, None, self.recur_memory)
        record = Projection(self.feed(x), self.drive(x), span.to(real), generator, rules.gated, *weights)
        y, cell = self.scan(record, tuple(cell), clock)
        return y, cell if elapsed is None else (*cell, elapsed)


def _stretches(
    dt: Float[Tensor, "B T"], elapsed: Float[Tensor, " B"], clock: Clock | None
) -> tuple[Float[Tensor, "B T"], Float[Tensor, " B"]]:
    """The logarithm of what every step stretches the past by, infinite at a first step; and the time after the last.

    In float64: an eighth of a billion steps in, a float32 would not change by one more.
    """
    reset, valid = (None, None) if clock is None else (clock.reset, clock.valid)
    dt = dt.double()
    after = elapsed[:, None] + (dt if valid is None else blank(valid, dt)).cumsum(1)
    before = torch.cat([elapsed[:, None], after[:, :-1]], 1)
    if reset is not None:
        # time never falls, so the last sequence to begin has begun latest
        begun = before.masked_fill(~reset, 0).cummax(1).values
        before, after = before - begun, after - begun
    return torch.log1p(dt / before), after[:, -1]
