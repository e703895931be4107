"""A sequence in, one class out: read from the last step, or from the mean of all."""

from typing import Any, ClassVar

import torch
from torch import nn

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.pairs import happened
from recurra.models.step import CompiledStep
from recurra.shapes import Float, State, Tensor


class Classifier(Model):
    """What class a sequence is of, said once it has been read.

    `logits, state = model(x, state, clock)`: `(B, T)` tokens or `(B, T, F)` features to `(B, classes)`. The state
    carries the pool with it, so a long sequence may come in pieces. With `clock.reset` the pool forgets what came
    before; with `clock.valid` it sees only steps that happened.

    Args:
        classes: how many there are.
        vocabulary: of tokens, or None where the input is features.
        inputs: how many features (F), or None where the input is tokens.
        pool: "last", the features of the last step, or "mean", their mean over the steps.
        width, depth, pattern, mixers, hidden, dropout: of the backbone.
    """

    name: ClassVar[str] = "classifier"

    def __init__(
        self,
        *,
        classes: int,
        width: int,
        depth: int,
        vocabulary: int | None = None,
        inputs: int | None = None,
        pool: str = "last",
        pattern: str = "mamba2",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if (vocabulary is None) == (inputs is None):
            raise ValueError("give a classifier either a vocabulary (tokens) or inputs (features)")
        one_of(("last", "mean"), pool=pool)
        self.pool = pool
        self.embedding = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(inputs or 1, width)
        self.backbone = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, classes)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.backbone.grows

    def initial_state(self, batch: int) -> State:
        """The backbone's state, the pool `(B, D)` and the steps in it `(B, 1)`."""
        weight = self.out.weight
        pooled = torch.zeros(batch, weight.shape[1], device=weight.device, dtype=torch.float64)
        return self.backbone.initial_state(batch), pooled, pooled[:, :1].clone()

    def forward(
        self, x: Tensor, state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B classes"], State]:
        inner, pooled, count = self.initial_state(len(x)) if state is None else state
        features, inner = self.backbone(self.embedding(x), inner, clock)
        pooled, count = self._pool(features.double(), pooled, count, clock)
        mean = pooled / count.clamp(min=1) if self.pool == "mean" else pooled
        return self.out(mean.to(features.dtype)), (inner, pooled, count)

    def _pool(
        self, features: Tensor, pooled: Tensor, count: Tensor, clock: Clock | None
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B 1"]]:
        """The sum over the steps since the last reset, or the last step's features; and how many there were."""
        steps = features.shape[1]
        if steps == 0:
            return pooled, count
        valid = happened(features, clock)
        live, kept = valid, torch.ones_like(count)
        if clock is not None and clock.reset is not None:
            begins = (clock.reset & valid).long().cumsum(1)
            live = valid & (begins == begins[:, -1:])
            kept = (begins[:, -1:] == 0).to(count)
        number = live.sum(1, keepdim=True).to(count)
        if self.pool == "mean":
            return pooled * kept + (features * live[..., None]).sum(1), count * kept + number
        index = torch.arange(steps, device=features.device).masked_fill(~live, -1).amax(1)
        last = features[torch.arange(len(features), device=features.device), index.clamp(min=0)]
        return torch.where(index[:, None] >= 0, last, pooled * kept), count * kept + number

    def compile_step(self, batch: int = 1) -> CompiledStep:
        """`logits, state = step(x, state)` for one token or one vector of features a row, without gradients."""
        way_in = self.embedding
        if isinstance(way_in, nn.Linear):
            return CompiledStep(self, way_in.weight.new_zeros(batch, 1, way_in.in_features))
        return CompiledStep(self, torch.zeros(batch, 1, dtype=torch.int64, device=way_in.weight.device))
