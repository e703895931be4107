"""Tokens in, the next token's logits out. At a vocabulary of 256 bytes this is char-rnn."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.generate import generate as _generate, stream as _stream
from recurra.models.step import CompiledStep
from recurra.shapes import Float, Int, State, Tensor


class LanguageModel(Model):
    """An embedding, a backbone, and the embedding again as the read-out.

    `logits, state = model(tokens, state, clock)`: `(B, T)` whole numbers to `(B, T, vocabulary)`. The state obeys the
    law: any cut, any number of steps at a time.

    Args:
        vocabulary: how many tokens there are.
        width: features of the stream (D).
        depth: blocks.
        pattern: mixers in order, repeated to depth, such as "mamba2*3,sliding_window".
        mixers: keywords of mixers, by name.
        hidden: of each block's MLP; None: 8/3 of the width; 0: no MLP.
        dropout: while training, on the embedding and on what each branch adds.
        tied: whether the read-out is the embedding's transpose.
        feed_forward, memories, shared: of the backbone.
    """

    name: ClassVar[str] = "language_model"

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        pattern: str = "mamba2",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        tied: bool = True,
        feed_forward: str = "mlp",
        memories: dict[str, dict[str, Any]] | None = None,
        shared: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.backbone = Backbone(width, depth, pattern, mixers, hidden, dropout, feed_forward, memories, shared)
        self.out = None if tied else nn.Linear(width, vocabulary, bias=False)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.backbone.grows

    def initial_state(self, batch: int) -> State:
        """The state before the first token."""
        return self.backbone.initial_state(batch)

    def features(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The stream after the last block, normalised."""
        return self.backbone(self.dropout(self.embedding(tokens)), state, clock)

    def read(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B vocabulary"]:
        """Features to logits."""
        return F.linear(features, self.embedding.weight) if self.out is None else self.out(features)

    def forward(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T vocabulary"], State]:
        features, state = self.features(tokens, state, clock)
        return self.read(features), state

    def compile_step(self, batch: int = 1) -> CompiledStep:
        """`logits, state = step(tokens, state)` for `(batch, 1)` tokens, without gradients: what decoding repeats."""
        return CompiledStep(self, torch.zeros(batch, 1, dtype=torch.int64, device=self.embedding.weight.device))

    @torch.no_grad()
    def surprise(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, previous: Float[Tensor, "B V"] | None = None
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B V"], State]:
        """Bits of surprise at each token, given everything before it.

        `previous` are the logits that the step before these tokens gave; without them the first token is charged
        as if all were equally likely. Returns the bits, the logits after the last token, and the state.
        """
        logits, state = self(tokens, state)
        first = torch.zeros_like(logits[:, :1]) if previous is None else previous[:, None]
        predicted = torch.cat([first, logits[:, :-1]], 1).float().log_softmax(-1)
        bits = -predicted.gather(-1, tokens[..., None])[..., 0] / torch.log(torch.tensor(2.0))
        return bits, logits[:, -1], state

    generate = _generate
    stream = _stream
