"""The coupled oscillatory recurrent network."""

import torch
from torch import nn

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.elapsed import timed_drive
from recurra.shapes import Float, Tensor


def cornn(
    drive: Vectors, recur: Vectors, state: Vectors, step: Tensor, stiffness: Tensor, damping: Tensor, *, tick: int
) -> tuple[Tensor, Vectors]:
    """A tick for the pull of positions, which makes way for the velocities, and a tick for theirs."""
    if tick == 0:
        position, velocity = state[:2]
        return position, (velocity, position, recur[0])
    velocity, position, pull = state
    force, dt = drive
    time = step * dt
    velocity = velocity + time * (torch.tanh(force + pull + recur[0]) - stiffness * position - damping * velocity)
    position = position + time * velocity
    return position, (position, velocity)


CORNN = Rule("cornn", cornn, 2, 1, state=2, params=3, operator="ticks", ticks=(0, 1), handed=1)


class CoRNN(Mixer):
    r"""A network of damped springs that pull each other: its state can neither explode nor die out at once.

    .. math::
        z_t = z_{t-1} + \Delta_t \bigl(\tanh(W y_{t-1} + \mathcal{W} z_{t-1} + V x_t + b)
        - \gamma\, y_{t-1} - \epsilon\, z_{t-1}\bigr) \qquad y_t = y_{t-1} + \Delta_t\, z_t

    with :math:`\Delta_t` the step times the clock's `dt`, 1 where it is not given: y is where every oscillator is and z
    how fast it moves. Rusch & Mishra 2021, https://arxiv.org/abs/2010.00951. As in the paper :math:`\Delta`,
    :math:`\gamma` and :math:`\epsilon` are chosen, not trained; the defaults are those of its sequential digits. Steps
    are explicit: they blow up where :math:`\Delta_t^2 \gamma` comes near 4.
    State: (y, z), `(B, D)` each, float32.

    Args:
        width: features in and out, and oscillators (D).
        step: :math:`\Delta`, in the clock's unit of time.
        stiffness: :math:`\gamma`: the square of the oscillators' own frequency.
        damping: :math:`\epsilon`.

    Raises:
        ValueError: `step` is not greater than 0, or `stiffness` or `damping` is less than 0.
    """

    timed = True

    def __init__(self, width: int, *, step: float = 0.042, stiffness: float = 2.7, damping: float = 4.7) -> None:
        super().__init__()
        greater_than(0, step=step)
        at_least(0, stiffness=stiffness, damping=damping)
        self.constants = step, stiffness, damping
        self.input = nn.Linear(width, width)
        self.position, self.velocity = (nn.Parameter(torch.empty(width, width)) for _ in range(2))
        # one map of input, position and velocity side by side
        bound = (3 * width) ** -0.5
        for weight in (self.input.weight, self.input.bias, self.position, self.velocity):
            nn.init.uniform_(weight, -bound, bound)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        width = len(self.position)
        return self.zeros(batch, width), self.zeros(batch, width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]]:
        drive = timed_drive(self.input(x), len(self.position), clock)
        params = constants(drive, len(self.position), *self.constants)
        weight = torch.stack([self.position, self.velocity])[:, None]
        read, state = self.scan(Cell(CORNN, drive, weight, params), state, clock)
        return read.to(x.dtype), state
