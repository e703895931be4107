"""Recurrent networks whose state moves between the observations."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.cell.rules import GRU_BEFORE, gru_before
from recurra.ops.ode import Solver, solve, solver, tick as flow_tick
from recurra.parts.elapsed import timed_drive
from recurra.parts.init import gates_, small_field_
from recurra.shapes import Float, Tensor


class ODERNN(Mixer):
    r"""A gated recurrent unit whose state flows by a differential equation until the next observation comes.

    .. math::
        h^-_t = h_{t-1} + \int_0^{\Delta_t} f(h(\tau))\, d\tau \qquad f(h) = W_2 \tanh(W_1 h + b_1) + b_2
    .. math::
        r_t = \sigma(W_r x_t + R_r h^-_t + b_r) \qquad z_t = \sigma(W_z x_t + R_z h^-_t + b_z)
    .. math::
        n_t = \tanh(W_n x_t + R_n (r_t \odot h^-_t) + b_n) \qquad
        y_t = h_t = (1 - z_t) \odot n_t + z_t \odot h^-_t

    with :math:`\Delta_t` the clock's `dt`, 1 where it is not given. Rubanova et al. 2019,
    https://arxiv.org/abs/1907.03907. This is the recursion of the paper: the authors' code, run forwards, flows for a
    step that is already over. Unlike that code the gates are one layer and the candidate is squashed, as in Cho et al.
    2014; gradients go back through the solver's own steps; f starts small, so that it begins as a gated recurrent unit.

    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units of h and of f (D).
        method: "euler", "midpoint", "heun" or "rk4", of fixed steps, or "adaptive_heun", "bosh3", "dopri5" or "dopri8",
            which choose theirs, one row after another, and need torchdiffeq.
        steps: the method's steps, or its flows, in one step of the clock.
        tolerance: the error that an adaptive method allows, relative and absolute.

    Raises:
        ValueError: no such method, `steps` is less than 1, or the method and `tolerance` do not fit.
        ImportError: the method needs torchdiffeq, and it is not installed.
    """

    timed = True
    undecayed = ("bias",)

    def __init__(self, width: int, *, method: str = "rk4", steps: int = 1, tolerance: float | None = None) -> None:
        super().__init__()
        self.rule = _rule(solver(method, steps, tolerance))
        self.input = nn.Linear(width, 3 * width)
        self.recurrent = nn.Parameter(torch.empty(3, width, width))
        self.weight = nn.Parameter(torch.empty(2, width, width))
        self.bias = nn.Parameter(torch.zeros(2, width))
        self.scan = Scan()
        gates_(self.input, self.recurrent)
        small_field_(self.weight)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return (self.zeros(batch, self.bias.shape[1]),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        drive = timed_drive(self.input(x), x.shape[-1], clock)
        weight = torch.cat([self.recurrent, self.weight])[:, None]
        read, state = self.scan(Cell(self.rule, drive, weight, self.bias), state, clock)
        return read.to(x.dtype), state


@functools.cache
def _rule(how: Solver) -> Rule:
    if not how.stages:
        return Rule("ode_rnn", functools.partial(_step, how=how), 4, 5, params=2, operator="own")
    step, flow = functools.partial(_tick, how=how), (3, 4) * (how.stages * how.steps)
    ticks, handed = (*flow, *GRU_BEFORE.ticks), max(how.stages, GRU_BEFORE.handed)
    return Rule("ode_rnn", step, 4, 1, params=2, operator="ticks", ticks=ticks, handed=handed)


def _tick(
    drive: Vectors, recur: Vectors, state: Vectors, hidden_bias: Tensor, bias: Tensor, *, how: Solver, tick: int
) -> tuple[Tensor, Vectors]:
    """Flow for a part of the step's time; after that, see the observation."""
    *gates, time = drive
    seeing = tick - 2 * how.stages * how.steps
    if seeing >= 0:
        return gru_before(tuple(gates), recur, state, tick=seeing)
    new = flow_tick(how, tick, recur[0], state, time, hidden_bias, bias)
    return new[0], new


def _step(
    drive: Vectors, recur: Vectors, state: Vectors, hidden_bias: Tensor, bias: Tensor, *, how: Solver
) -> tuple[Tensor, Vectors]:
    """Flow until the observation, then see it."""
    (*gates, time), (weight,) = drive, recur
    first, second = weight[3:, 0]

    h = solve(how, lambda h: F.linear(torch.tanh(F.linear(h, first, hidden_bias)), second, bias), state[0], time[:, :1])
    new: Vectors = (h,)
    for tick, kind in enumerate(GRU_BEFORE.ticks):
        h, left = gru_before(tuple(gates), (F.linear(new[0], weight[kind, 0]),), new, tick=tick)
        new = (*left, *new[len(left) :])
    return h, (h,)
