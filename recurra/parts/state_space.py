"""A diagonal state space with its parameters: what S4D, H3 and Liquid-S4 put their own things around."""

import math

import torch
from torch import nn

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.ops import Scan, StateSpace
from recurra.ops.discretise import zero_order_hold
from recurra.parts.hippo import legs_normal
from recurra.parts.init import log_step_
from recurra.shapes import Float, Inexact, Tensor, state_zeros, wide

STARTS = ("lin", "inv", "legs", "real")


class DiagonalStateSpace(nn.Module):
    r"""Every feature through N states of its own, each with its own rate, by zero-order hold.

    .. math::
        h_t = e^{\Delta A} h_{t-1} + x_t \qquad y_t = \operatorname{Re} \sum_n \bar c_n h_{tn} + d\, x_t
        \qquad \bar c = 2\, c\, (e^{\Delta A} - 1) / A

    The states stand for themselves and their conjugates, hence the 2; from "real" they are real, without it.

    Args:
        features: that have parameters of their own (F).
        units: states of a feature, conjugates counted: half as many complex ones are kept; as many real ones.
        start: where A starts: "lin", "inv" or "legs", with conjugates, or "real".
        copies: inputs that share a feature's parameters, side by side; each has its own states.

    Raises:
        ValueError: `start` is another, or `units` is not even where states are complex.
    """

    def __init__(self, features: int, units: int, *, start: str, copies: int = 1) -> None:
        super().__init__()
        one_of(STARTS, start=start)
        if start != "real" and units % 2:
            raise ValueError(f"units is {units}: states that come with their conjugates are an even number")
        self.copies = copies
        rate, frequency = rates(start, units)
        self.log_rate = nn.Parameter(rate.log().float().repeat(features, 1))
        # a real start has no frequencies: None is no parameter
        self.frequency = None if frequency is None else nn.Parameter(frequency.float().repeat(features, 1))
        shape = (features, units) if frequency is None else (features, units // 2, 2)
        self.read = nn.Parameter(torch.randn(shape) * (1 if frequency is None else math.sqrt(0.5)))
        self.log_step = nn.Parameter(torch.empty(features))
        self.skip = nn.Parameter(torch.randn(features))
        log_step_(self.log_step)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D N"]:
        """All zero, for every copy of every feature: complex, or real from a real start."""
        features, units = self.log_rate.shape
        zeros = state_zeros(self.log_rate, batch, features * self.copies, units)
        return zeros if self.frequency is None else torch.complex(zeros, zeros)

    def coefficients(self) -> tuple[Inexact[Tensor, "D N"], Inexact[Tensor, "D N"], Inexact[Tensor, "D N"]]:
        """The logarithm of the decay, the weight of the write and that of the read, conjugates included."""
        real = wide(self.log_rate)
        rate, step, read = -self.log_rate.to(real).exp(), self.log_step.to(real).exp()[:, None], self.read.to(real)
        if self.frequency is not None:
            rate, read = torch.complex(rate, self.frequency.to(real)), 2 * torch.view_as_complex(read)
        _, write = zero_order_hold(rate, step)
        return rate * step, write, read

    def forward(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D N"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
        log_decay, write, read = self.coefficients()
        log_decay, weight, skip = (
            p.repeat_interleave(self.copies, 0) if self.copies > 1 else p for p in (log_decay, write * read, self.skip)
        )
        return self.scan(StateSpace(x, log_decay, weight, skip.to(log_decay.real)), state, clock)


def rates(start: str, units: int) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"] | None]:
    """Minus the real part of A and its imaginary part (None: A is real), one of every pair of conjugates.

    Gu et al. 2022, https://arxiv.org/abs/2206.11893, for every start; DSS has the rates of "legs" too.
    """
    index = torch.arange(units if start == "real" else units // 2, dtype=torch.float64)
    if start == "real":
        return index + 1, None
    if start == "lin":
        frequency = math.pi * index
    elif start == "inv":
        frequency = units / math.pi * (units / (2 * index + 1) - 1)
    else:
        frequency = legs_normal(units)[0][units // 2 :]
    return torch.full_like(frequency, 0.5), frequency
