"""The Jordan network."""

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.linear import handed, readable
from recurra.shapes import Float, Tensor


def jordan(drive: Vectors, recur: Vectors, state: Vectors, decay: Tensor) -> tuple[Tensor, Vectors]:
    """State: h, and what the context, made of outputs, gives the hidden units, U s."""
    _, context = state
    context = recur[0] + decay * context
    h = torch.tanh(drive[0] + context)
    return h, (h, context)


JORDAN_RULE = Rule("jordan", jordan, 1, 1, state=2, params=1)


class Jordan(Mixer):
    r"""A recurrent network that hears its own outputs: what it said before, fading, is part of what it hears next.

    .. math::
        s_t = y_{t-1} + \mu s_{t-1} \qquad h_t = \tanh(W x_t + U s_t + b) \qquad y_t = V h_t

    Jordan 1986, https://apps.dtic.mil/sti/html/tr/ADA173989/index.html. Outputs are linear and without
    a bias, so that U V is one matrix and a step one product; with :math:`\mu = 0` and V the identity it is Elman's
    network. Unlike the paper the gradient goes back through all steps. What the paper's outputs are squashed by, and
    its :math:`\mu`, are not verified.
    State: (h, U s), the hidden units and what the context gave them, each `(B, N)`, float32.

    Args:
        width: features in and out (D).
        hidden: hidden units (N); None: as many as `width`.
        decay: :math:`\mu`, in [0, 1): what a step leaves of the context.

    Raises:
        ValueError: `decay` is outside [0, 1), or there are no hidden units.
    """

    def __init__(self, width: int, *, hidden: int | None = None, decay: float = 0.5) -> None:
        super().__init__()
        hidden = width if hidden is None else hidden
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be at least 0 and below 1, or the context grows for ever")
        at_least(1, hidden=hidden)
        self.decay = decay
        self.input = nn.Linear(width, hidden)
        self.feedback = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)
        self.scan = Scan()
        for layer in (self.input, self.feedback, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N"], ...]:
        """Nothing said yet: zeros."""
        hidden = self.input.out_features
        return self.zeros(batch, hidden), self.zeros(batch, hidden)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B N"], ...]]:
        feedback, output = readable(self, "feedback", "output")
        around = feedback.weight @ output.weight
        decay = constants(x, len(around), self.decay)
        x, weight, bias = handed(x, self.input)
        record = Cell(JORDAN_RULE, x, around[None, None], decay, input_weight=weight, bias=bias)
        hidden, state = self.scan(record, state, clock)
        return self.output(hidden), state
