"""Autonomously active networks, whose attractors tire."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.elapsed import timed_drive
from recurra.parts.heads import divide
from recurra.shapes import Float, Tensor

ACTIVE = 0.85  # above it a unit uses its reservoir up, below it refills
# where a reservoir is half of what it can be, how sharply that is so, and the least that an empty one lets through
HALF, SHARP, HEARD, SENT = 0.15, 0.05, 0.05, 0.0
INSIDE, ACROSS = 0.15, -1.0  # weights within a clique and between cliques


def strength(full: Tensor, least: float) -> Tensor:
    """From `least` where a reservoir is empty to 1 where it is full: a step, rounded off."""
    low, high = (math.tanh((x - HALF) / SHARP) for x in (0.0, 1.0))
    return least + (1 - least) * (torch.tanh((full - HALF) / SHARP) - low) / (high - low)


def transient_states(
    drive: Vectors, recur: Vectors, state: Vectors, step: Tensor, filling: Tensor, emptying: Tensor, *, tick: int
) -> tuple[Tensor, Vectors]:
    """What excites is felt first, then what inhibits, which goes by what the others have used up."""
    if tick == 0:
        active, used = state[:2]
        return active, (strength(1 - used, SENT) * active, used, active, recur[0])
    (force, dt), (_, used, active, excited) = drive, state
    time = step * dt
    growth = strength(1 - used, HEARD) * excited - recur[0] + force
    # towards 1 where it grows, towards 0 where not; each part exact for what it holds still
    kept = torch.exp(-time * torch.abs(growth))
    active = torch.where(growth > 0, 1 - (1 - active) * kept, active * kept)
    refilled = used * torch.exp(-time * filling * torch.relu(1 - active / ACTIVE))
    used = torch.where(active > ACTIVE, 1 - (1 - used) * torch.exp(-time * emptying), refilled)
    return active, (active, used)


TRANSIENT_STATES = Rule(
    "transient_states", transient_states, 2, 1, state=2, params=3, operator="ticks", ticks=(0, 1), handed=2
)


class TransientStates(Mixer):
    r"""A network that is never at rest: a few units win and stay active until they tire, and then others win.

    .. math::
        \dot a_i = \begin{cases} (1 - a_i)\, r_i & r_i > 0 \\ a_i\, r_i & r_i \le 0 \end{cases} \qquad
        r_i = f_w(\varphi_i) \sum_j [W_{ij}]_+ a_j - \sum_j [-W_{ij}]_+ f_z(\varphi_j)\, a_j + (V x + b)_i

    .. math::
        \dot\varphi_i = \begin{cases} \Gamma_+ (1 - \varphi_i)(1 - a_i / a_c) & a_i \le a_c \\
        -\Gamma_-\, \varphi_i & a_i > a_c \end{cases} \qquad y = a

    Every unit has a reservoir :math:`\varphi`, which its activity a uses up and rest refills; f is a rounded step from
    a small number, where a reservoir is empty, to 1. Gros & Kaczor 2009, https://arxiv.org/abs/0903.1979, after Gros
    2007, https://doi.org/10.1088/1367-2630/9/4/109. Unverified against both: the constants (:math:`\Gamma`,
    :math:`a_c`, f's) and the form of f; these make cliques follow each other for ever. W starts as a ring of cliques
    that excite themselves, share a unit with the next, and inhibit all others, no two weights alike. Unlike the papers
    W and V are learned by gradients, negative weights inhibit by what they are, f rounds by tanh, and steps are exact
    for the growth at their beginning, so that a stays in [0, 1] at any step; the clock's `dt`, 1 where it is not given,
    is how long one is. When a clique gives way hangs on roundings: long runs in float32 and float64 part.
    State: (a, 1 - :math:`\varphi`), `(B, D)` each, float32.

    Args:
        width: features in and out, and units (D).
        clique: units of each clique at the start; one less divides `width`.
        step: time that passes in a step, in the papers' unit.
        filling: :math:`\Gamma_+`.
        emptying: :math:`\Gamma_-`.

    Raises:
        ValueError: `clique` is less than 2, one less does not divide `width`, or a time or rate is not greater than 0.
    """

    timed = True

    def __init__(
        self, width: int, *, clique: int = 5, step: float = 4.0, filling: float = 0.004, emptying: float = 0.009
    ) -> None:
        super().__init__()
        if clique < 2:
            raise ValueError(f"clique is {clique}: it must be at least 2, or nobody has a neighbour")
        cliques = divide(width, clique - 1, among="clique less the unit that two share")
        greater_than(0, step=step, filling=filling, emptying=emptying)
        self.constants = step, filling, emptying
        self.input = nn.Linear(width, width)
        # a ring of cliques, each sharing its last unit with the next one's first
        member = torch.zeros(width, cliques)
        for number in range(cliques):
            member[torch.arange(number * (clique - 1), number * (clique - 1) + clique) % width, number] = 1
        weight = torch.where(member @ member.T > 0, INSIDE, ACROSS).masked_fill(torch.eye(width) > 0, 0)
        # no two alike: a tie between successors would never be settled
        self.recurrent = nn.Parameter(weight * torch.empty_like(weight).uniform_(0.8, 1.2))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """At rest, with full reservoirs."""
        width = len(self.recurrent)
        return self.zeros(batch, width), self.zeros(batch, width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]]:
        width = len(self.recurrent)
        drive, params = timed_drive(self.input(x), width, clock), constants(x, width, *self.constants)
        weight = F.relu(torch.stack([self.recurrent, -self.recurrent]))[:, None]
        read, state = self.scan(Cell(TRANSIENT_STATES, drive, weight, params), state, clock)
        return read.to(x.dtype), state
