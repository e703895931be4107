"""Nonlinear recurrences: a pointwise rule over a recurrent operator. A cell is data; engines run it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from torch.nn import functional as F

from recurra.shapes import Bool, Float, Tensor

TICKS = 24  # products a step whose C does not take too long to compile
Vectors = tuple[Tensor, ...]  # (B, N) each


class Rule(NamedTuple):
    """A pointwise function and the number of vectors in each of its arguments.

    `function(drive, recur, state, *params) -> (read, new_state)`: every argument is a tuple of tensors `(B, N)`,
    except params, tensors `(N,)`. `drive` is W x + b, computed for all steps at once; `recur` is R `state[0]`.

    `operator` says what R is: "dense", blocks `(recur, heads, d, d)` with heads * d = N (one block when full);
    "diagonal", `(recur, N)`; "none"; or "own": the rule gets the weight itself as `recur = (weight,)` and does its
    own products, for recurrences that are not pointwise over one product. Those run by the loop.

    Or "ticks": a step is several products, one after another. `ticks` says which of several R, `(kinds * recur, heads,
    d, d)`, each of them multiplies `state[0]` by. The function is called once a tick, with its number as `tick`. All
    but the last may return, after the state, up to `handed` more vectors for the next (what a tick does not return
    stays what it was); only what the last one reads is read.
    """

    name: str
    function: Callable[..., tuple[Tensor, Vectors]]
    drive: int
    recur: int
    state: int = 1
    params: int = 0
    operator: str = "dense"
    ticks: tuple[int, ...] = (0,)
    handed: int = 0

    def at(self, tick: int) -> Callable[..., tuple[Tensor, Vectors]]:
        """The function of one tick."""
        return functools.partial(self.function, tick=tick) if self.operator == "ticks" else self.function


class Cell(NamedTuple):
    r"""A nonlinear cell over time.

    .. math::  (o_t, s_t) = \operatorname{rule}(d_t,\; R\, s^{(0)}_{t-1},\; s_{t-1},\; \theta)

    State: a tuple of `rule.state` tensors `(B, N)`; all zero before the first step. With `project`
    :math:`P`, the read is P o and so is the state's first tensor, `(B, M)`; R then reads M features.

    What drives a cell is nearly always :math:`d = W x + b`. With `input_weight` W the record holds x itself in place
    of d, because some implementations make that product on their way; the others ask for `driven()`.
    """

    rule: Rule
    drive: Float[Tensor, "B T _"]  # d, G vectors of N side by side; with `input_weight`, x
    weight: Float[Tensor, "..."] | None = None  # R, by the rule's operator
    params: Float[Tensor, "P N"] | None = None
    project: Float[Tensor, "M N"] | None = None
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None
    input_weight: Float[Tensor, "GN D"] | None = None  # W
    bias: Float[Tensor, " GN"] | None = None  # b

    def driven(self) -> "Cell":
        """The same record with its drive made: d in place of x, W and b."""
        drive = self.drive
        if self.input_weight is not None:
            drive = F.linear(drive, self.input_weight, self.bias)
        elif self.bias is not None:
            drive = drive + self.bias
        return self._replace(drive=drive, input_weight=None, bias=None)

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.drive

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Cell":
        """The same record, told which steps did not happen: no drive makes a nonlinear step an identity."""
        return self._replace(valid=valid)
