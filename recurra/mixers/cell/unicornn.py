"""The undamped independent controlled oscillatory recurrent network."""

import torch
from torch import nn

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.elapsed import timed_drive
from recurra.shapes import Float, Tensor


def unicornn(drive: Vectors, recur: Vectors, state: Vectors, step: Tensor, stiffness: Tensor) -> tuple[Tensor, Vectors]:
    """State: where it is, and how fast it moves."""
    (force, dt), (y, z) = drive, state
    time = step * dt
    z = z - time * (torch.tanh(recur[0] + force) + stiffness * y)
    y = y + time * z
    return y, (y, z)


UNICORNN = Rule("unicornn", unicornn, 2, 1, state=2, params=2, operator="diagonal")


class UnICORNN(Mixer):
    r"""A row of springs that do not touch, and lose nothing: each swings for ever at a pace that it learns.

    .. math::
        z_t = z_{t-1} - \Delta_t\, \sigma(c) \odot \bigl(\tanh(w \odot y_{t-1} + V x_t + b) + \alpha\, y_{t-1}\bigr)
        \qquad y_t = y_{t-1} + \Delta_t\, \sigma(c) \odot z_t

    with :math:`\Delta_t` the step times the clock's `dt`, 1 where it is not given. The step is symplectic: areas of
    (y, z) are kept, and nothing is forgotten. Rusch & Mishra 2021, https://arxiv.org/abs/2103.05487. As in the paper
    :math:`\Delta` and :math:`\alpha` are chosen, not trained; the defaults are those of its permuted digits. Unlike the
    paper one layer stands here, without its dropout, and the gradient keeps the states, where the authors' code makes
    them again backwards. Steps blow up where :math:`(\Delta_t\, \sigma(c))^2 (\alpha + w)` comes near 4.
    State: (y, z), `(B, D)` each, float32.

    Args:
        width: features in and out, and oscillators (D).
        step: :math:`\Delta`, in the clock's unit of time.
        stiffness: :math:`\alpha`.

    Raises:
        ValueError: `step` is not greater than 0, or `stiffness` is less than 0.
    """

    timed = True

    def __init__(self, width: int, *, step: float = 0.19, stiffness: float = 30.65) -> None:
        super().__init__()
        greater_than(0, step=step)
        at_least(0, stiffness=stiffness)
        self.step, self.stiffness = step, stiffness
        self.input = nn.Linear(width, width)
        self.recurrent = nn.Parameter(torch.rand(width))
        self.pace = nn.Parameter(torch.empty(width).uniform_(-0.1, 0.1))
        nn.init.kaiming_uniform_(self.input.weight, a=8)
        nn.init.zeros_(self.input.bias)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        width = len(self.pace)
        return self.zeros(batch, width), self.zeros(batch, width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]]:
        drive = timed_drive(self.input(x), len(self.pace), clock)
        step = self.step * self.pace.to(drive).sigmoid()
        params = torch.cat([step[None], constants(drive, len(step), self.stiffness)])
        read, (y, z) = self.scan(Cell(UNICORNN, drive, self.recurrent[None], params), state, clock)
        return read.to(x.dtype), (y, z)
