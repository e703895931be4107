r"""Flows: :math:`\dot h = f(h)` for some time, each row for its own.

Time is scaled so that every row flows from 0 to 1, whatever its step's length. The methods of fixed step are tableaus
of numbers, and their rows do not know of each other. An adaptive method chooses its steps by the error of all that it
is given, so each row is solved by itself: slower, but what a row becomes never depends on its neighbours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from recurra.checks import at_least, one_of
from recurra.shapes import Float, Tensor

# each stage's point in terms of the slopes before it, and the weights of all slopes at the end
TABLEAUS: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": (((),), (1.0,)),
    "midpoint": (((), (1 / 2,)), (0.0, 1.0)),
    "heun": (((), (1.0,)), (1 / 2, 1 / 2)),
    "rk4": (((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
ADAPTIVE = ("adaptive_heun", "bosh3", "dopri5", "dopri8")


class Solver(NamedTuple):
    """How a flow is followed: see `solver`."""

    method: str
    steps: int
    tolerance: float | None

    @property
    def stages(self) -> int:
        """Slopes that one step of the method looks at; 0 where it adapts."""
        return len(TABLEAUS[self.method][1]) if self.method in TABLEAUS else 0


def solver(method: str, steps: int, tolerance: float | None) -> Solver:
    """A method, how many steps of it make one step of the clock, and the error allowed where the method adapts.

    Raises:
        ValueError: no such method, less than one step, a tolerance for a method that has none, or none that is
            positive for one that needs it.
        ImportError: the method adapts, and torchdiffeq, which has it, is not installed.
    """
    one_of((*TABLEAUS, *ADAPTIVE), method=method)
    at_least(1, steps=steps)
    if method in TABLEAUS and tolerance is not None:
        raise ValueError(f"{method} has a fixed step: give it `steps`, not a tolerance of {tolerance}")
    if method in ADAPTIVE:
        if tolerance is None or tolerance <= 0:
            raise ValueError(f"tolerance is {tolerance}: {method} needs one above 0, such as 1e-5")
        _odeint()
    return Solver(method, steps, tolerance)


def solve(
    how: Solver,
    field: Callable[..., Float[Tensor, "B N"]],
    h: Float[Tensor, "B N"],
    length: Float[Tensor, "B 1"],
    *held: Float[Tensor, "B _"],
) -> Float[Tensor, "B N"]:
    """h after each row has followed `field(h, *held)` for its own `length`.

    Args:
        how: the method.
        field: the slope of h, row by row.
        h: where the rows begin.
        length: how long each flows.
        held: what the field is told beside h; it stays the same all the way.
    """
    length = length / how.steps
    step = _fixed if how.method in TABLEAUS else _adaptive
    for _ in range(how.steps):
        h = step(how, field, h, length, *held)
    return h


def tick(
    how: Solver,
    number: int,
    product: Float[Tensor, "*F"],
    state: tuple[Float[Tensor, "*F"], ...],
    time: Float[Tensor, "*F"],
    held: Float[Tensor, "*_"],
    bias: Float[Tensor, "*_"],
) -> tuple[Float[Tensor, "*F"], ...]:
    r"""One product of a flow of fixed steps along :math:`W_2 \tanh(W_1 h + v) + b`: for a cell's rule of several ticks.

    The method's every slope takes two, by W_1 and by W_2; `2 * how.stages * how.steps` make the whole flow. Returned
    are what the next product is of (after the last tick: h), h before the method's step, and the moves it has tried.

    Args:
        how: the method.
        number: which tick of the flow this is.
        product: by one of the two matrices, of `state[0]`.
        state: what the tick before returned, at first (h,).
        time: how long the flow is.
        held: v.
        bias: b.
    """
    slope, second = divmod(number, 2)
    if second:
        return moved(how, slope, time / how.steps * (product + bias), state)
    return torch.tanh(product + held), *tried(how, slope, state)


def tried(how: Solver, slope: int, state: tuple[Float[Tensor, "*F"], ...]) -> tuple[Float[Tensor, "*F"], ...]:
    """h before the method's step and the moves that it has tried, where `state` is what the slope before left."""
    stage = slope % how.stages
    return state[1 : 2 + stage] if stage else state[:1]


def moved(
    how: Solver, slope: int, move: Float[Tensor, "*F"], state: tuple[Float[Tensor, "*F"], ...]
) -> tuple[Float[Tensor, "*F"], ...]:
    """What is left of the flow's slope of this number, which says to `move` so: where to look next, and `tried`."""
    (stages, ends), stage = TABLEAUS[how.method], slope % how.stages
    h, moves = state[1], [*state[2 : 2 + stage], move]
    return (_moved(h, ends, moves),) if stage == how.stages - 1 else (_moved(h, stages[stage + 1], moves), h, *moves)


def _fixed(how: Solver, field: Callable[..., Tensor], h: Tensor, length: Tensor, *held: Tensor) -> Tensor:
    """One step of an explicit Runge-Kutta method."""
    stages, ends = TABLEAUS[how.method]
    moves: list[Tensor] = []
    for stage in stages:
        moves.append(length * field(_moved(h, stage, moves), *held))
    return _moved(h, ends, moves)


def _moved(h: Tensor, weights: tuple[float, ...], moves: list[Tensor]) -> Tensor:
    for weight, move in zip(weights, moves, strict=True):
        if weight:
            h = torch.add(h, move, alpha=weight)
    return h


def _adaptive(how: Solver, field: Callable[..., Tensor], h: Tensor, length: Tensor, *held: Tensor) -> Tensor:
    """One row after another, each with the steps that it needs."""
    odeint, ends, rows = _odeint(), torch.tensor([0.0, 1.0], dtype=h.dtype, device=h.device), []
    for start, time, *rest in zip(h.split(1), length.split(1), *(x.split(1) for x in held), strict=True):

        def slope(_: Tensor, z: Tensor, time: Tensor = time, rest: list[Tensor] = rest) -> Tensor:
            return time * field(z, *rest)

        # a step ends where the flow does: what lies within a step is interpolated, with a far larger error
        allowed = {"rtol": how.tolerance, "atol": how.tolerance, "options": {"step_t": ends}}
        rows.append(odeint(slope, start, ends, method=how.method, **allowed)[-1])
    return torch.cat(rows)


def _odeint() -> Callable[..., Any]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError("adaptive methods need torchdiffeq: pip install 'recurra[ode]'") from error
    return odeint
