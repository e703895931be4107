"""Neural controlled differential equations, on a path that never looks ahead."""

import functools

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.ode import Solver, solve, solver
from recurra.parts.elapsed import elapsed
from recurra.shapes import Float, Tensor


class NeuralCDE(Mixer):
    r"""A state that moves as far as its input does: what drives it is not where the input is but how it changes.

    .. math::
        dh = F(h)\, dX \qquad F(h) = \tanh(W_2 \tanh(W_1 h + b_1) + b_2) \in \mathbb{R}^{D \times (C + 1)}
        \qquad h_1 = \zeta X_1 + \beta \qquad y_t = h_t

    along a path X of C channels P x and one of time. Kidger et al. 2020, https://arxiv.org/abs/2005.08926, on the
    rectilinear path of Morrill et al. 2021, https://arxiv.org/abs/2106.11028, which a stream can follow: between two
    observations first time moves alone, for the clock's `dt` (1 where it is not given), then P x moves at once,

    .. math::
        h^-_t = h_{t-1} + \int_0^{\Delta_t} F_{C+1}(h)\, d\tau \qquad
        h_t = h^-_t + \int_0^1 F_{1 \ldots C}(h)\, P (x_t - x_{t-1})\, ds

    Unlike the papers the path has few channels, which a linear map makes of x, since F has D C numbers; and the layer
    within is tanh, not relu, so that the solver keeps its order. Gradients go back through the solver's own steps. F
    starts small. Nothing pulls h back: by a stream without end it may be carried as far as time goes.

    State: (h, X, begun): `(B, D)`, the last point of the path `(B, C)`, and 1 after a sequence's first step `(B, 1)`;
    float32.

    Args:
        width: features in and out, and units of h and of the network (D).
        channels: of the path, beside time (C).
        method: "euler", "midpoint", "heun" or "rk4", of fixed steps, or "adaptive_heun", "bosh3", "dopri5" or "dopri8",
            which choose theirs, one row after another, and need torchdiffeq.
        steps: the method's steps, or its flows, on each of the path's two pieces in one step of the clock.
        tolerance: the error that an adaptive method allows, relative and absolute.

    Raises:
        ValueError: `channels` or `steps` is less than 1, no such method, or the method and `tolerance` do not fit.
        ImportError: the method needs torchdiffeq, and it is not installed.
    """

    timed = True
    undecayed = ("bias",)

    def __init__(
        self, width: int, *, channels: int = 8, method: str = "midpoint", steps: int = 1, tolerance: float | None = None
    ) -> None:
        super().__init__()
        at_least(1, channels=channels)
        step = functools.partial(_step, how=solver(method, steps, tolerance))
        self.rule = Rule("neural_cde", step, 1, 1, state=3, operator="own")
        self.path = nn.Linear(width, channels, bias=False)
        self.start = nn.Linear(channels, width)
        # W_1, then a matrix of W_2 for every channel, time the last
        self.weight = nn.Parameter(torch.empty(channels + 2, width, width))
        self.bias = nn.Parameter(torch.zeros(channels + 2, width))
        self.scan = Scan()
        for layer, matrix in enumerate(self.weight):
            nn.init.xavier_uniform_(matrix, 0.1 if layer else 1.0)

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        """Nothing has begun: zeros."""
        channels, width = self.path.weight.shape
        return self.zeros(batch, width), self.zeros(batch, channels), self.zeros(batch, 1)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        point, time = self.path(x), elapsed(x, clock)
        drive = torch.cat([self.start(point).to(time.dtype), point.to(time.dtype), time], -1)
        # a column for every number of both layers, its bias the last row: pieces of it are used as they lie
        weight = torch.cat([self.weight.flatten(0, 1).T, self.bias.flatten()[None]])
        read, state = self.scan(Cell(self.rule, drive, weight), state, clock)
        return read.to(x.dtype), state


def _step(drive: Vectors, recur: Vectors, state: Vectors, *, how: Solver) -> tuple[Tensor, Vectors]:
    """Time moves, then the path; or both begin."""
    (h, last, begun), (both,) = state, recur
    width, channels = h.shape[-1], last.shape[-1]
    start, point, time = drive[0].split([width, channels, 1], -1)
    columns = [width, channels * width, width]
    (inner, outer, clockwork), biases = (part.split(columns, -1) for part in both.split([width, 1]))
    inner_bias, outer_bias, clockwork_bias = biases
    flowed = solve(
        how,
        lambda h: torch.addmm(clockwork_bias, torch.addmm(inner_bias, h, inner).tanh(), clockwork).tanh(),
        h,
        time,
    )
    flowed = solve(
        how,
        lambda h, move: _along(torch.addmm(outer_bias, torch.addmm(inner_bias, h, inner).tanh(), outer).tanh(), move),
        flowed,
        torch.ones_like(time),
        point - last,
    )
    h = torch.where(begun > 0, flowed, start)
    return h, (h, point, torch.ones_like(begun))


def _along(directions: Float[Tensor, "B CD"], move: Float[Tensor, "B C"]) -> Float[Tensor, "B D"]:
    """The slope along a piece of the path."""
    return (move[:, None] @ directions.unflatten(-1, (move.shape[-1], -1))).squeeze(1)
