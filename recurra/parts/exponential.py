"""Sums weighted by exponentials, which can be of any size, as recurrences that never form a large number.

A weight e^s is written as e^(s - m), where m follows the largest score so far, and the sum is rescaled as m moves. The
recurrence of m is a diagonal one over (max, +), so all steps still run in parallel. Nothing that is read depends on m:
so no gradient goes through it, and its rounding costs nothing, as the rescaling uses m as it was rounded.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.ops import MAX_PLUS, Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.steps import blank
from recurra.shapes import Float, Tensor


class Scaled(NamedTuple):
    """A recurrence S = e^g S + e^s b in terms of what is kept, S e^(-m): its decay and its writes are at most 1."""

    log_decay: Float[Tensor, "B T *F"]  # of what is kept
    weight: Float[Tensor, "B T *F"]  # of the write, e^(s - m)
    before: Float[Tensor, "B T *F"]  # m before each step; -inf where there is nothing yet
    peak: Float[Tensor, "B T *F"]  # m after it


def _rescaled(score: Tensor, before: Tensor, peak: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of how much of what is kept stays, and the weight of what is written."""
    # the difference of two near numbers is exact, so it comes first: what m lost when it was rounded is made good.
    # Where there is nothing to rescale any factor will do, and 1 is finite in the gradient too
    fall = (before - peak + log_decay).masked_fill(before == -torch.inf, 0)
    # a score is never above its peak, but for steps that did not happen
    return fall, (score - peak).clamp(max=1).exp()


RESCALED = Map("rescaled", _rescaled, 2)


class Stabiliser(nn.Module):
    r"""Follow the largest score so far, as it decays: :math:`m_t = \max(m_{t-1} + g_t, s_t)`.

    State: m, `(B, *F)`; -inf before the first step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scan = Scan()

    def forward(
        self,
        score: Float[Tensor, "B T *F"],
        log_decay: Float[Tensor, "..."],
        peak: Float[Tensor, "B *F"],
        clock: Clock | None,
    ) -> tuple[Scaled, Float[Tensor, "B *F"]]:
        """
        Args:
            score: s, the logarithms of the weights.
            log_decay: g <= 0, like `score`, or `(*F)` where it is the same at every step.
            peak: m before the first step.
            clock: when steps happen.
        """
        first = peak.detach()
        peaks, last = self.scan(Diag(log_decay.detach(), score.detach(), MAX_PLUS), first, clock)
        before = torch.cat([first[:, None], peaks[:, :-1]], 1)
        if clock is not None and clock.reset is not None:
            before = blank(~clock.reset, before, -torch.inf)
        fall, weight = pointwise(RESCALED, score, before, peaks, log_decay)
        return Scaled(fall, weight, before, peaks), last


class ExponentialSum(nn.Module):
    r"""A sum of values, each weighted by the exponential of its score and fading since, and of the weights themselves.

    .. math::  S_t = e^{g_t} S_{t-1} + e^{s_t} [v_t, 1]

    The ratio of the two is a softmax-weighted mean of every value so far.
    State: m, `(B, *F)`, and S e^(-m), `(B, *F, V + 1)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stabiliser, self.scan = Stabiliser(), Scan()

    def forward(
        self,
        score: Float[Tensor, "B T *F"],
        value: Float[Tensor, "B T *F V"],
        log_decay: Float[Tensor, "..."],
        state: tuple[Float[Tensor, "B *F"], Float[Tensor, "B *F W"]],
        clock: Clock | None,
    ) -> tuple[Float[Tensor, "B T *F W"], Scaled, tuple[Float[Tensor, "B *F"], Float[Tensor, "B *F W"]]]:
        """S e^(-m) after each step, how it was scaled, and the state. Scores, values and decays come in a wide type."""
        peak, sums = state
        scaled, peak = self.stabiliser(score, log_decay, peak, clock)
        write = scaled.weight[..., None] * F.pad(value, (0, 1), value=1.0)
        read, sums = self.scan(Diag(scaled.log_decay.exp()[..., None].expand_as(write), write), sums, clock)
        return read, scaled, (peak, sums)


def _over(values: Tensor, weights: Tensor, least: float) -> Tensor:
    # one division a vector, not one for each of its numbers, and three for each going back
    return values * weights.clamp(min=least).reciprocal()


def mean_of(sums: Float[Tensor, "B T *H W"], least: float) -> Float[Tensor, "B T *H V"]:
    """As `mean`, of weights whose sum is held above `least`."""
    values, weights = sums.split([sums.shape[-1] - 1, 1], -1)
    return pointwise(Map("over", _over, constants=(least,)), values, weights)


def mean(sums: Float[Tensor, "*B W"]) -> Float[Tensor, "*B V"]:
    """The weighted mean: a sum of values over the sum of weights beside it."""
    return sums[..., :-1] / sums[..., -1:]
