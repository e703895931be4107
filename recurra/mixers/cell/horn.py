"""The harmonic oscillator recurrent network."""

import math

import torch
from torch import nn

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.elapsed import timed_drive
from recurra.shapes import Float, Tensor


def horn(
    drive: Vectors, recur: Vectors, state: Vectors, frequency: Tensor, damping: Tensor, step: Tensor, gain: Tensor
) -> tuple[Tensor, Vectors]:
    """State: how fast it moves, which the others feel, and where it is, which is read."""
    (force, dt), (velocity, position) = drive, state
    time = step * dt
    pull = gain * torch.tanh(force + recur[0]) - frequency * frequency * position - 2 * damping * velocity
    velocity = velocity + time * pull
    position = position + time * velocity
    return position, (velocity, position)


HORN_RULE = Rule("horn", horn, 2, 1, state=2, params=4)


class HORN(Mixer):
    r"""A network of pendulums, each with a rhythm of its own, that feel how fast the others swing.

    .. math::
        v_t = v_{t-1} + \Delta_t \Bigl(\alpha \tanh\bigl(W x_t + b + \tfrac{1}{\sqrt{D}} (U v_{t-1} + \beta)\bigr)
        - \omega^2 \odot p_{t-1} - 2 \gamma \odot v_{t-1}\Bigr) \qquad y_t = p_t = p_{t-1} + \Delta_t\, v_t

    with :math:`\Delta_t` the step times the clock's `dt`, 1 where it is not given. Effenberger et al. 2025,
    https://doi.org/10.1073/pnas.2412830122. As in the authors' code :math:`\omega` and :math:`\gamma` are chosen, not
    trained, and drawn for each unit, evenly between their base over `spread` and times `spread`; a spread of 1 makes
    all units alike. Unlike their code the two biases, which only ever come as one sum, are one. Steps blow up where
    :math:`\Delta_t\, \omega` comes near 2. State: (v, p), `(B, D)` each, float32.

    Args:
        width: features in and out, and oscillators (D).
        step: :math:`\Delta`, in the clock's unit of time.
        gain: :math:`\alpha`: how strongly an oscillator is driven.
        frequency: base of :math:`\omega`, in radians for a unit of time.
        damping: base of :math:`\gamma`.
        spread: how many times more and less than its base a unit's frequency and damping may be.

    Raises:
        ValueError: `step`, `gain` or `frequency` is not greater than 0, `damping` is less than 0, or `spread` is less
            than 1.
    """

    timed = True
    frequency: Tensor
    damping: Tensor

    def __init__(
        self,
        width: int,
        *,
        step: float = 1.0,
        gain: float = 0.04,
        frequency: float = 2 * math.pi / 28,
        damping: float = 0.01,
        spread: float = 2.0,
    ) -> None:
        super().__init__()
        greater_than(0, step=step, gain=gain, frequency=frequency)
        at_least(0, damping=damping)
        at_least(1, spread=spread)
        self.constants = step, gain
        self.input = nn.Linear(width, width)
        bound = width**-0.5
        self.recurrent = nn.Parameter(torch.empty(width, width).uniform_(-bound, bound))
        for name, base in (("frequency", frequency), ("damping", damping)):
            self.register_buffer(name, torch.empty(width).uniform_(base / spread, base * spread))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        width = len(self.recurrent)
        return self.zeros(batch, width), self.zeros(batch, width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]]:
        width = len(self.recurrent)
        drive = timed_drive(self.input(x), width, clock)
        own = torch.stack([self.frequency, self.damping]).to(drive)
        params = torch.cat([own, constants(drive, width, *self.constants)])
        weight = (self.recurrent / math.sqrt(width))[None, None]
        read, (v, p) = self.scan(Cell(HORN_RULE, drive, weight, params), state, clock)
        return read.to(x.dtype), (v, p)
