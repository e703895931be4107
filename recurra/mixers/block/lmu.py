"""The Legendre memory unit."""

import math

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Projection, Scan
from recurra.ops.projection import rules
from recurra.parts.hippo import delay
from recurra.shapes import Float, Tensor, wide


class LMU(Mixer):
    r"""A small recurrent network that writes one number a step into a memory of the last :math:`\theta` of them.

    .. math::
        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} \qquad
        \theta\, \dot m = A m + b\, u_t \qquad
        y_t = h_t = \tanh(W_x x_t + W_h h_{t-1} + W_m m_t)

    u is held for a time `dt`, 1 where the clock does not give one, and the memory moves on exactly. A and b keep u over
    the last :math:`\theta` as Legendre polynomials: what it was a share r of the window ago is
    :math:`\sum_n m_n P_n(2r - 1)`. Voelker et al. 2019,
    https://proceedings.neurips.cc/paper/2019/hash/952285b9b7e7a1be5aa7849f32ffff05-Abstract.html. Unlike the paper the
    memory may keep several numbers, each in polynomials of its own. A and :math:`\theta` are not trained, as in the
    paper. State: (h, m), `(B, D)` and `(B, M, N)`, float32.

    Args:
        width: features in and out, and of the hidden state (D).
        order: polynomials (N).
        window: :math:`\theta`, in the clock's unit of time: steps where it has none.
        channels: numbers that are remembered (M).

    Raises:
        ValueError: `order` or `channels` is less than 1, or `window` is not greater than 0.
    """

    timed = True

    def __init__(self, width: int, *, order: int = 32, window: float = 256.0, channels: int = 1) -> None:
        super().__init__()
        at_least(1, order=order, channels=channels)
        if not 0 < window < math.inf:
            raise ValueError(f"window is {window}: it must be a time greater than 0")
        self.order, self.window = order, window
        self.feed = nn.Linear(width, channels, bias=False)
        self.feed_hidden = nn.Parameter(torch.empty(channels, width))
        self.feed_memory = nn.Parameter(torch.zeros(channels, channels * order))
        self.drive = nn.Linear(width, width, bias=False)
        self.recur_hidden = nn.Parameter(torch.empty(width, width))
        self.recur_memory = nn.Parameter(torch.empty(width, channels * order))
        for weight in (self.feed.weight, self.feed_hidden):
            # LeCun's: every sum as large as its terms
            nn.init.uniform_(weight, -math.sqrt(3 / width), math.sqrt(3 / width))
        for weight in (self.drive.weight, self.recur_hidden, self.recur_memory):
            nn.init.xavier_normal_(weight)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B M N"]]:
        channels, width = self.feed_hidden.shape
        return self.zeros(batch, width), self.zeros(batch, channels, self.order)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], Float[Tensor, "B M N"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], Float[Tensor, "B M N"]]]:
        real = wide(x, self.feed_hidden)
        dt = x.new_ones(x.shape[:2]) if clock is None or clock.dt is None else clock.dt
        weights = (self.feed_hidden, self.feed_memory, self.recur_hidden, self.recur_memory)
        generator = delay(self.order).to(x.device, real)
        record = Projection(self.feed(x), self.drive(x), dt.to(real) / self.window, generator, rules.tanh, *weights)
        return self.scan(record, state, clock)
