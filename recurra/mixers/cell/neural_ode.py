"""Neural ordinary differential equations, driven by a sequence."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.ode import Solver, solve, solver, tick as flow_tick
from recurra.parts.elapsed import timed_drive
from recurra.parts.init import small_field_
from recurra.shapes import Float, Tensor


class NeuralODE(Mixer):
    r"""A state that flows through time, where a small network says in which direction.

    .. math::
        \dot h(\tau) = f(h(\tau), x_t) = W_2 \tanh(W_1 h(\tau) + V x_t + b_1) + b_2 \qquad
        y_t = h_t = h_{t-1} + \int_0^{\Delta_t} f(h(\tau), x_t)\, d\tau

    with :math:`\Delta_t` the clock's `dt`, 1 where it is not given. Chen et al. 2018, https://arxiv.org/abs/1806.07366.
    Unlike the paper, which solves from one starting point, a sequence drives the flow: each input is held for its
    step. Gradients go back through the solver's own steps, not through the adjoint equation, whose error depends on a
    tolerance. f starts small, so that the first flow changes little. Nothing pulls h back: by a stream without end it
    may be carried as far as time goes, at a pace that the weights bound.

    State: (h,), `(B, D)`, float32.

    Args:
        width: features in and out, and units of h and of the network (D).
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
        self.input = nn.Linear(width, width)
        self.weight = nn.Parameter(torch.empty(2, width, width))
        self.bias = nn.Parameter(torch.zeros(1, width))
        self.scan = Scan()
        small_field_(self.weight)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        return (self.zeros(batch, self.bias.shape[1]),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        drive = timed_drive(self.input(x), x.shape[-1], clock)
        read, state = self.scan(Cell(self.rule, drive, self.weight[:, None], self.bias), state, clock)
        return read.to(x.dtype), state


@functools.cache
def _rule(how: Solver) -> Rule:
    if not how.stages:
        return Rule("neural_ode", functools.partial(_step, how=how), 2, 2, params=1, operator="own")
    step, ticks = functools.partial(_tick, how=how), (0, 1) * (how.stages * how.steps)
    return Rule("neural_ode", step, 2, 1, params=1, operator="ticks", ticks=ticks, handed=how.stages)


def _tick(
    drive: Vectors, recur: Vectors, state: Vectors, bias: Tensor, *, how: Solver, tick: int
) -> tuple[Tensor, Vectors]:
    """Flow for a part of the step's time, its input held."""
    held, time = drive
    new = flow_tick(how, tick, recur[0], state, time, held, bias)
    return new[0], new


def _step(drive: Vectors, recur: Vectors, state: Vectors, bias: Tensor, *, how: Solver) -> tuple[Tensor, Vectors]:
    """Flow for the step's time, its input held."""
    (held, time), (weight,) = drive, recur
    first, second = weight[:, 0]

    h = solve(
        how, lambda h, held: F.linear(torch.tanh(F.linear(h, first) + held), second, bias), state[0], time[:, :1], held
    )
    return h, (h,)
