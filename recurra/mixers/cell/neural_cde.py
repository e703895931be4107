"""Neural controlled differential equations, on a path that never looks ahead."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.cell import TICKS
from recurra.ops.ode import Solver, moved, solve, solver, tried
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
        self.rule = _rule(solver(method, steps, tolerance), channels)
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
        (h, last, begun), point, time = state, self.path(x), elapsed(x, clock)
        start, point = self.start(point).to(time.dtype), point.to(time.dtype)
        # a sequence begins where its first point says, and nothing moves there
        first = F.pad(begun == 0, (0, x.shape[1] - 1))
        first = (first if clock is None or clock.reset is None else first | clock.reset)[..., None]
        move = point - torch.cat([last[:, None], point[:, :-1]], 1)
        flows = torch.cat([time, move], -1).masked_fill(first, 0)
        drive = [start.masked_fill(~first, 0)[:, :, None], flows[..., None].expand(-1, -1, -1, h.shape[1])]
        record = Cell(self.rule, torch.cat(drive, 2).flatten(2), self.weight[:, None], self.bias)
        read, (h,) = self.scan(record, (h,), clock)
        if clock is None or clock.valid is None:
            return read.to(x.dtype), (h, point[:, -1], torch.ones_like(begun))
        happened = clock.counts[:, None]
        newest = point.gather(1, (happened[..., None] - 1).clamp(min=0).expand(-1, -1, point.shape[-1]))[:, 0]
        return read.to(x.dtype), (h, torch.where(happened > 0, newest, last), begun.masked_fill(happened > 0, 1))


@functools.cache
def _rule(how: Solver, channels: int) -> Rule:
    """A product for each layer and channel is a tick; where they are too many, or not known, the rule makes its own."""
    slopes = how.stages * how.steps
    ticks = (*(0, channels + 1) * slopes, *tuple(range(channels + 1)) * slopes)
    vectors = channels + 2
    if not 0 < len(ticks) <= TICKS:
        return Rule("neural_cde", functools.partial(_step, how=how), vectors, vectors, 1, vectors, "own")
    step = functools.partial(_tick, how=how, channels=channels)
    return Rule("neural_cde", step, vectors, 1, 1, vectors, "ticks", ticks, how.stages + 1)


def _tick(
    drive: Vectors, recur: Vectors, state: Vectors, *biases: Tensor, how: Solver, channels: int, tick: int
) -> tuple[Tensor, Vectors]:
    """Time moves, then the path, a channel after the other; where a sequence begins neither does."""
    start, time, *moves = drive
    along, channel = tick - 2 * how.stages * how.steps, 0
    if along < 0:
        slope, channel = divmod(tick, 2)
        moves, outer = [time], biases[-1:]
    else:
        slope, channel = divmod(along, channels + 1)
        outer = biases[1:-1]
    if channel == 0:
        return start, (torch.tanh(recur[0] + biases[0]), *tried(how, slope, state))
    move = moves[channel - 1] / how.steps * torch.tanh(recur[0] + outer[channel - 1])
    at = 2 + slope % how.stages
    move = move if channel == 1 else state[at] + move
    if channel < len(moves):
        return start, (*state[:at], move)
    new = moved(how, slope, move, state)
    if along == (channels + 1) * how.stages * how.steps - 1:
        new = (new[0] + start,)
    return new[0], new


def _step(drive: Vectors, recur: Vectors, state: Vectors, *biases: Tensor, how: Solver) -> tuple[Tensor, Vectors]:
    """The same, all channels of a slope at once."""
    start, *flows = drive
    (h,), (weight,) = state, recur
    inner, outer, clockwork = weight[0, 0], weight[1:-1].flatten(0, 2), weight[-1, 0]
    outer_bias, move = torch.cat(biases[1:-1]), torch.stack([x[:, 0] for x in flows[1:]], -1)
    h = solve(
        how,
        lambda h: F.linear(F.linear(h, inner, biases[0]).tanh(), clockwork, biases[-1]).tanh(),
        h,
        flows[0][:, :1],
    )
    h = solve(
        how,
        lambda h, move: _along(F.linear(F.linear(h, inner, biases[0]).tanh(), outer, outer_bias).tanh(), move),
        h,
        torch.ones_like(flows[0][:, :1]),
        move,
    )
    h = h + start
    return h, (h,)


def _along(directions: Float[Tensor, "B CD"], move: Float[Tensor, "B C"]) -> Float[Tensor, "B D"]:
    """The slope along a piece of the path."""
    return (move[:, None] @ directions.unflatten(-1, (move.shape[-1], -1))).squeeze(1)
