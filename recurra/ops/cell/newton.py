r"""`Cell` for all steps at once: the whole sequence as one equation, solved by Newton's method.

A cell whose units do not mix within a step has a Jacobian of one number a unit, or of 2 x 2 where it has two states.
So with the states of all steps guessed, every step is linearised side by side, and the linear recurrence

.. math::  s_t = J_t s_{t-1} + (f_t(\hat s_{t-1}) - J_t \hat s_{t-1})

is one parallel scan that gives the next guess: Danieli et al. 2025, https://arxiv.org/abs/2510.21450, after Lim et al.
2024, https://arxiv.org/abs/2309.12252. A guess that fits worse than the one before is halved. The Jacobian comes from
the trace that the compiled cells come from; the gradient is one scan in reverse at the solution, whatever it took to
find it. Where the steps do not come to agree with the rule, the loop runs, and a log line says so.

On few cores that is more work than the compiled loop, so it runs only when asked for: `recurra.use("newton")`.
"""

import functools
import logging
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops.block import Block, chunk as block_chunk
from recurra.ops.cell import Cell, Rule, loop
from recurra.ops.cell.trace import Traced, Untraceable, gathered, reachable, trace
from recurra.ops.diag import Diag, chunk as diag_chunk
from recurra.ops.once import once_differentiable
from recurra.shapes import Float, Tensor

MOST = 40  # guesses
HALVINGS = 4
log = logging.getLogger("recurra")

Vectors = tuple[Float[Tensor, "B T N"], ...]


@functools.cache
def _traced(rule: Rule) -> Traced | str:
    """A rule's trace, or why there is none."""
    try:
        return trace(rule)
    except Untraceable as reason:
        return str(reason)


def declines(record: Cell, state: tuple[Tensor, ...]) -> str | None:
    """Units that mix within a step, more than two states, a rule without a trace, or a single step."""
    rule = record.rule
    if rule.operator not in ("diagonal", "none"):
        return f"the units of a step must not mix: R is {rule.operator}"
    if rule.state > 2:
        return f"the Jacobian is 1 x 1 or 2 x 2, not of {rule.state} states"
    if record.project is not None:
        return "a projection mixes the units"
    if record.drive.shape[1] == 1:
        return "a single step"
    traced = _traced(rule)
    return traced if isinstance(traced, str) else None


def yields(record: Cell, state: tuple[Tensor, ...]) -> str:
    """Always."""
    return "used only when asked for by name"


def scan(
    record: Cell, state: tuple[Float[Tensor, "B _"], ...]
) -> tuple[Float[Tensor, "B T _"], tuple[Float[Tensor, "B _"], ...]]:
    driven = record.driven()
    rule, drive, _, params = gathered(driven)[:4]
    steps = _Steps(rule, record.reset, record.valid)
    with torch.no_grad():
        solution = _solve(steps, drive, params, state)
    if solution is None:
        log.warning(f"Newton's method found no solution for {rule.name} in {MOST} guesses: the loop runs instead")
        return loop.scan(driven, state)
    read, *last = _Newton.apply(steps, solution, drive, params, *state)
    return read, tuple(last)


class _Steps(NamedTuple):
    """All steps of a rule side by side, as functions of the states before them."""

    rule: Rule
    reset: Tensor | None
    valid: Tensor | None

    def run(self, wanted: tuple[str, ...], **inputs: tuple[Tensor, ...]) -> list[Vectors]:
        """Those outputs of the rule's trace."""
        traced = _traced(self.rule)
        assert isinstance(traced, Traced)
        (like, *_), values = inputs["state"], {}
        for name, group in inputs.items():
            values |= dict(zip(traced.inputs[name], group, strict=True))
        for x in sorted(reachable(traced, [x for name in wanted for x in traced.outputs[name]], values)):
            op, *arguments = traced.graph.nodes[x]
            if op == "const":
                values[x] = torch.tensor(arguments[0], dtype=like.dtype, device=like.device)
            elif x not in values:
                values[x] = getattr(torch, op)(*(values[a] for a in arguments))
        return [tuple(values[x].expand_as(like) for x in traced.outputs[name]) for name in wanted]

    def before(self, states: Vectors, first: tuple[Tensor, ...]) -> Vectors:
        """The states that every step sees, of the states that every step leaves."""
        shifted = (torch.cat([a[:, None], x[:, :-1]], 1) for x, a in zip(states, first, strict=True))
        return tuple(x if self.reset is None else x.masked_fill(self.reset[..., None], 0) for x in shifted)

    def happened(self, x: Tensor, other: Tensor | float = 0.0) -> Tensor:
        return x if self.valid is None else torch.where(self.valid[..., None], x, other)

    def forward(self, drive: Vectors, params: tuple[Tensor, ...], before: Vectors) -> tuple[Tensor, Vectors]:
        """What is read at every step, and the states that it leaves."""
        (read,), new = self.run(("read", "state"), drive=drive, params=params, recur=(), state=before)
        held = tuple(self.happened(x, y) for x, y in zip(new, before, strict=True))
        return self.happened(read), held

    def pull(
        self, wanted: tuple[str, ...], drive: Vectors, params: tuple[Tensor, ...], before: Vectors, g_read: Tensor,
        g_state: tuple[Tensor, ...],
    ) -> list[Vectors]:  # fmt: skip
        """The gradients of what goes into every step, of those of what comes out."""
        given = {"drive": drive, "params": params, "recur": (), "state": before}
        got = self.run(wanted, **given, g_read=(self.happened(g_read),), g_state=tuple(map(self.happened, g_state)))
        return [tuple(map(self.happened, group)) for group in got]

    def jacobian(self, drive: Vectors, params: tuple[Tensor, ...], before: Vectors) -> Float[Tensor, "B T N S S"]:
        """Of the states after every step, as functions of those before it."""
        zero, one, rows = torch.zeros_like(before[0]), torch.ones_like(before[0]), []
        for i in range(len(before)):
            unit = tuple(one if i == j else zero for j in range(len(before)))
            ((row),) = self.pull(("g_state",), drive, params, before, zero, unit)
            rows.append(torch.stack([self.happened(x, u) for x, u in zip(row, unit, strict=True)], -1))
        return self.cut(torch.stack(rows, -2))

    def cut(self, x: Tensor) -> Tensor:
        """Nothing passes the beginning of a sequence."""
        return x if self.reset is None else x.masked_fill(self.reset.view(*self.reset.shape, *(1,) * (x.ndim - 2)), 0)


def _linear(matrix: Float[Tensor, "B T N S S"], drive: Vectors, first: tuple[Tensor, ...]) -> Vectors:
    """s = J s + b for all steps."""
    if len(drive) == 1:
        return (diag_chunk.scan(Diag(matrix[..., 0, 0], drive[0]), first[0])[0],)
    read, _ = block_chunk.scan(Block(matrix, torch.stack(drive, -1)), torch.stack(first, -1))
    return read.unbind(-1)


def _solve(steps: _Steps, drive: Tensor, params: Tensor | None, first: tuple[Tensor, ...]) -> Vectors | None:
    """The states that every step leaves; None where they cannot be found."""
    inputs = _vectors(steps.rule, drive, params)
    states = tuple(torch.zeros_like(inputs[0][0]) for _ in first)
    before = steps.before(states, first)
    _, after = steps.forward(*inputs, before)
    enough, last = 64 * torch.finfo(drive.dtype).eps, False
    now = wrong = _apart(after, states)
    for _ in range(MOST):
        matrix = steps.jacobian(*inputs, before)
        bent = (matrix @ torch.stack(before, -1)[..., None])[..., 0].unbind(-1)
        guess = _linear(matrix, tuple(x - y for x, y in zip(after, bent, strict=True)), first)
        for halving in range(HALVINGS):
            if halving:
                guess = tuple((x + y) / 2 for x, y in zip(guess, states, strict=True))
            before = steps.before(guess, first)
            _, after = steps.forward(*inputs, before)
            now = _apart(after, guess)
            if now < wrong or now <= enough:
                break
        if now == float("inf"):
            return None
        if last and now <= enough:
            return after
        # one guess more than enough: the error is squared, or what rounding leaves
        states, wrong, last = guess, now, now <= enough
    return None


def _apart(one: Vectors, other: Vectors) -> float:
    """How far the steps are from what the rule makes of them, of the largest of them; infinite if any is no number."""
    worst = max(float((x - y).abs().max() / (1 + y.abs().max())) for x, y in zip(one, other, strict=True))
    return worst if worst == worst else float("inf")


def _vectors(rule: Rule, drive: Tensor, params: Tensor | None) -> tuple[Vectors, tuple[Tensor, ...]]:
    return drive.chunk(rule.drive, -1), () if params is None else params.unbind(0)


class _Newton(Function):
    """The reads and the last state at a solution; backward is one linear scan in reverse."""

    @staticmethod
    def forward(ctx: Any, steps: _Steps, states: Vectors, drive: Tensor, params: Tensor | None, *first: Tensor) -> Any:
        ctx.steps, ctx.count = steps, len(states)
        ctx.save_for_backward(drive, params, *states, *first)
        read, _ = steps.forward(*_vectors(steps.rule, drive, params), steps.before(states, first))
        return read, *(x[:, -1].clone() for x in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        drive, params, *rest = ctx.saved_tensors
        steps, (g_read, *g_last) = ctx.steps, grad_outputs
        before = steps.before(tuple(rest[: ctx.count]), tuple(rest[ctx.count :]))
        inputs = (*_vectors(steps.rule, drive, params), before)
        zero = tuple(torch.zeros_like(x) for x in before)
        (own,) = steps.pull(("g_state",), *inputs, g_read, zero)
        matrix = steps.jacobian(*inputs).mT.flip(1)
        flow = _linear(matrix, tuple(steps.cut(x).flip(1) for x in own), tuple(g_last))
        flow = tuple(x.flip(1) for x in flow)
        after = tuple(torch.cat([x[:, 1:], g[:, None]], 1) for x, g in zip(flow, g_last, strict=True))
        g_drive, g_params = steps.pull(("g_drive", "g_params"), *inputs, g_read, after)
        grads = None if params is None else torch.stack([x.sum((0, 1)) for x in g_params])
        return None, None, torch.cat(g_drive, -1), grads, *(x[:, 0] for x in flow)
