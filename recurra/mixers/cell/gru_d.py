"""The gated recurrent unit that forgets with time."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Scan, Vectors
from recurra.ops.cell.rules import GRU_BEFORE, gru_before
from recurra.ops.steps import blank
from recurra.parts.elapsed import elapsed
from recurra.parts.init import gates_
from recurra.shapes import Float, Tensor


def gru_d(drive: Vectors, recur: Vectors, state: Vectors, *, tick: int) -> tuple[Tensor, Vectors]:
    """A gated recurrent unit, and then what time will leave of its state until the next step."""
    *gates, kept = drive
    h, new = gru_before(tuple(gates), recur, state, tick=tick)
    return h, (kept * h,) if tick == 2 else new


RULE = GRU_BEFORE._replace(name="gru_d", function=gru_d, drive=4)


class GRUD(Mixer):
    r"""A gated recurrent unit whose state fades between observations, each unit at a pace of its own.

    .. math::
        h^-_t = e^{-\max(0,\, w \Delta_t + \beta)} \odot h_{t-1} \qquad
        r_t = \sigma(W_r x_t + R_r h^-_t + b_r) \qquad z_t = \sigma(W_z x_t + R_z h^-_t + b_z)
    .. math::
        n_t = \tanh(W_n x_t + R_n (r_t \odot h^-_t) + b_n) \qquad
        y_t = h_t = (1 - z_t) \odot n_t + z_t \odot h^-_t

    with :math:`\Delta_t` the clock's `dt`, 1 where it is not given. Che et al. 2018,
    https://doi.org/10.1038/s41598-018-24271-9 (https://arxiv.org/abs/1606.01865). Unlike the paper, where every
    variable has its own mask, a step brings all features or did not happen (the clock's `valid`). So the features'
    times since they were last seen are one, their mask is a constant that b holds, and nothing is left to impute: of
    the two decays the state's remains.

    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
    """

    timed = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 3 * width)
        self.weight = nn.Parameter(torch.empty(3, 1, width, width))
        # above zero, or the maximum would pass no gradient
        self.decay_rate = nn.Parameter(torch.empty(width).uniform_(0, 0.1))
        self.decay_bias = nn.Parameter(torch.zeros(width))
        self.scan = Scan()
        gates_(self.input, self.weight[:, 0])

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return (self.zeros(batch, len(self.decay_rate)),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        time = elapsed(x, clock)
        rate, bias = self.decay_rate.to(time.dtype), self.decay_bias.to(time.dtype)
        kept = torch.exp(-torch.relu(rate * time + bias))
        if clock is not None and clock.valid is not None:
            kept = blank(clock.valid, kept, 1.0)
        # products are of what is left of h: so each step leaves what will be left at the next, the last all of it
        drive = torch.cat([self.input(x).to(time.dtype), F.pad(kept[:, 1:], (0, 0, 0, 1), value=1.0)], -1)
        read, state = self.scan(Cell(RULE, drive, self.weight), (state[0] * kept[:, 0],), clock)
        return read.to(x.dtype), state
