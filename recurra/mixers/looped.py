"""Depth as a loop: one layer again and again over the same sequence, each token for as long as it takes."""

from typing import Any, NamedTuple

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.shapes import Float, State, Tensor, wide


class Thought(NamedTuple):
    """What a loop came to, and what it cost."""

    output: Float[Tensor, "B T D"]
    state: State
    weights: Float[Tensor, "B T R"]  # of each loop's output in the whole: they sum to one
    cost: Float[Tensor, "B T"]  # loops until a token halted, and the remainder; zero where no step happened


class Looped(nn.Module):
    r"""One mixer applied several times in depth, with the input put in again each time; tokens may halt early.

    .. math::
        h^0 = 0 \qquad h^{i+1} = \operatorname{mix}(h^i + x) \qquad y = h^R

    and with `halting`, for every token by itself,

    .. math::
        p^i = \sigma(w^\top h^i + b) \qquad n = \min\bigl(R, \min\{N : \textstyle\sum_{i \le N} p^i \ge 1 - \epsilon\}
        \bigr) \qquad r = 1 - \textstyle\sum_{i < n} p^i \qquad y = \textstyle\sum_{i < n} p^i h^i + r\, h^n

    Universal transformers: Dehghani et al. 2018, https://arxiv.org/abs/1807.03819; with the input injected, Yang et al.
    2023, https://arxiv.org/abs/2311.12424; halting: Graves 2016, https://arxiv.org/abs/1603.08983. A token that has
    halted keeps its last h, which later loops of other tokens see, as in the universal transformer; so the mixer runs
    all loops, and what halting saves is thought, not time. The last loop halts every token. Add
    `time_penalty * think(x).cost.mean()` to a loss. Unlike universal transformers, loops have no marks of their own.

    State: a tuple with the mixer's state for each loop. It obeys the law as the mixer does.

    Args:
        mixer: what is looped; looped once, it is what it was.
        loops: how many, or with `halting` the most (R).
        halting: :math:`\epsilon`, such as 0.01: a token halts once its p sum to more than 1 - it; None: none does.

    Raises:
        ValueError: `loops` is less than 1, or `halting` does not lie between 0 and 1.
    """

    def __init__(self, mixer: Mixer, *, loops: int = 4, halting: float | None = None) -> None:
        super().__init__()
        at_least(1, loops=loops)
        if halting is not None and not 0 < halting < 1:
            raise ValueError(f"halting is {halting}: it must lie between 0 and 1, such as 0.01")
        self.mixer: Any = mixer
        self.loops, self.halting = loops, halting
        self.halt = None if halting is None else nn.Linear(mixer.config["width"], 1)

    @property
    def grows(self) -> bool:
        """Whether the mixer's state grows with the sequence."""
        return self.mixer.grows

    @property
    def timed(self) -> bool:
        """Whether the mixer honours `Clock.dt`."""
        return self.mixer.timed

    def initial_state(self, batch: int) -> State:
        """The mixer's, once for each loop."""
        return tuple(self.mixer.initial_state(batch) for _ in range(self.loops))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Run over x from `state`, as a mixer does."""
        thought = self.think(x, state, clock)
        return thought.output, thought.state

    def think(self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None) -> Thought:
        """As `forward`, and with it how each token divided its attention among the loops."""
        states = self.initial_state(len(x)) if state is None else state
        real = wide(x)
        h, total = torch.zeros_like(x), torch.zeros(x.shape, dtype=real, device=x.device)
        left = torch.ones(x.shape[:2], dtype=real, device=x.device)
        running = torch.ones_like(left, dtype=torch.bool)
        weights, after, cost = [], [], torch.zeros_like(left)
        for loop, before in enumerate(states):
            new, own = self.mixer(h + x, before, clock)
            h = torch.where(running[..., None], new, h)
            share, halts = self._share(h, left, loop == len(states) - 1)
            share = share * running
            total = total + share[..., None] * h.to(real)
            # what is left when a token halts is its remainder, and has a gradient
            cost = cost + running * (1 + left * halts)
            left, running = left - share, running & ~halts
            weights.append(share)
            after.append(own)
        if clock is not None and clock.valid is not None:
            cost = cost * clock.valid
        return Thought(total.to(x.dtype), tuple(after), torch.stack(weights, -1), cost)

    def _share(
        self, h: Float[Tensor, "B T D"], left: Float[Tensor, "B T"], last: bool
    ) -> tuple[Float[Tensor, "B T"], Tensor]:
        """The weight of this loop for tokens that still run, and which of them halt with it."""
        if last:
            return left, torch.ones_like(left, dtype=torch.bool)
        if self.halt is None or self.halting is None:
            return torch.zeros_like(left), torch.zeros_like(left, dtype=torch.bool)
        p = torch.sigmoid(self.halt(h)[..., 0].to(left.dtype))
        halts = left - p <= self.halting
        return torch.where(halts, left, p), halts
