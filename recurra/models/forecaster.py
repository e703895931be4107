"""Numbers in, quantiles of the next numbers out, at every step."""

from typing import Any, ClassVar

from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.step import CompiledStep
from recurra.shapes import Float, State, Tensor


class Forecaster(Model):
    """At every step, quantiles of the numbers to come.

    `quantiles, state = model(x, state, clock)`: `(B, T, inputs)` to `(B, T, horizon, Q)`.
    What is read at step t speaks of steps t + 1 to t + horizon and has seen nothing after t. With horizon 1 and one
    quantile it is plain regression. Quantiles never cross: each is the one below plus something positive.

    Args:
        inputs: numbers at each step.
        horizon: steps ahead.
        quantiles: levels, rising, between 0 and 1.
        width, depth, pattern, mixers, hidden, dropout: of the backbone.
    """

    name: ClassVar[str] = "forecaster"

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        depth: int,
        horizon: int = 1,
        quantiles: list[float] | tuple[float, ...] = (0.5,),
        pattern: str = "mamba2",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        levels = list(quantiles)
        if not levels or sorted(set(levels)) != levels or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"quantiles are {levels}: they must rise and lie between 0 and 1")
        at_least(1, horizon=horizon)
        self.horizon = horizon
        self.embedding = nn.Linear(inputs, width)
        self.backbone = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, horizon * len(levels))

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.backbone.grows

    def initial_state(self, batch: int) -> State:
        """The state before the first step."""
        return self.backbone.initial_state(batch)

    def forward(
        self, x: Float[Tensor, "B T F"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T horizon Q"], State]:
        features, state = self.backbone(self.embedding(x), state, clock)
        out = self.out(features).unflatten(-1, (self.horizon, -1))
        lowest, rises = out[..., :1], nn.functional.softplus(out[..., 1:])
        return lowest + nn.functional.pad(rises.cumsum(-1), (1, 0)), state

    def compile_step(self, batch: int = 1) -> CompiledStep:
        """`quantiles, state = step(x, state)` for `(batch, 1, inputs)` numbers, without gradients."""
        return CompiledStep(self, self.embedding.weight.new_zeros(batch, 1, self.embedding.in_features))
