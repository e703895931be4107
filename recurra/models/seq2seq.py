"""Encoder and decoder: one network reads, and what it remembers at the end is where another begins to write."""

from typing import Any, ClassVar

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.beam import beam as _beam
from recurra.models.pairs import between_resets, phases
from recurra.shapes import Float, Int, State, Tensor, state_zeros


class Seq2Seq(Model):
    r"""A source is read into a state, and its answer is written from what is remembered of it.

    .. math::
        s_j = \operatorname{encode}(x_j, s_{j-1}) \qquad h_0 = s_S \qquad
        h_i = \operatorname{decode}(y_{i-1}, h_{i-1}) \qquad p(y_i) = \operatorname{softmax}(W h_i) \qquad
        y_0 = \text{go} + \operatorname{read}(s_S)

    `logits, state = model(tokens, state, clock)` over rows `source go answer`: `(B, T)` to `(B, T, vocabulary)`, zero
    at the source's steps. Sutskever, Vinyals & Le 2014, https://arxiv.org/abs/1409.3215. Unlike the paper any mixer may
    read and write, in blocks with an MLP; what the encoder put out last is added to `go`, so that what stands behind
    its last mixer learns too; and the tokens of both sides are one vocabulary. The paper's reversed source is in the
    data: a stream cannot be turned around.

    State: the backbone's (the encoder's before `go`, the decoder's after); what the encoder put out last `(B, D)`; and
    whether the answer has begun, `(B, 1)` bool. The law holds, inside the source too.

    Args:
        vocabulary: how many tokens there are.
        go: the token that begins the answer.
        width, depth, pattern, mixers, hidden, dropout: of the encoder, and of the decoder.
    """

    name: ClassVar[str] = "seq2seq"

    def __init__(
        self,
        *,
        vocabulary: int,
        go: int,
        width: int,
        depth: int,
        pattern: str = "lstm",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.go = go
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.decoder = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, vocabulary)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.encoder.grows

    def initial_state(self, batch: int) -> State:
        """The encoder's, nothing put out, and that no answer has begun."""
        weight = self.out.weight
        said = state_zeros(weight, batch, weight.shape[1])
        return self.encoder.initial_state(batch), said, torch.zeros_like(said[:, :1], dtype=torch.bool)

    def forward(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T vocabulary"], State]:
        initial = self.initial_state(len(tokens))
        return between_resets(self._piece, tokens, initial if state is None else state, initial, clock)

    def _piece(self, tokens: Tensor, state: State, clock: Clock | None) -> tuple[Tensor, State]:
        """Steps without resets: first all of the source that is among them, then all of the answer."""
        inner, said, before = state
        x = self.dropout(self.embedding(tokens))
        if tokens.shape[1] == 0:
            return self.out(x), state
        source, answer, answering = phases(tokens, self.go, before, clock)
        dt = None if clock is None else clock.dt
        if bool(source.any()):
            read, inner = self.encoder(x, inner, Clock(None, source, dt))
            last = source & (source.cumsum(1) == source.sum(1, keepdim=True))
            said = torch.where(source.any(1, keepdim=True), (read * last[..., None]).sum(1).to(said.dtype), said)
        if not bool(answer.any()):
            return x.new_zeros(*tokens.shape, self.out.out_features), (inner, said, answering)
        starts = answer & (answer.cumsum(1) == 1) & ~before
        features, inner = self.decoder(
            x + said[:, None].to(x.dtype) * starts[..., None], inner, Clock(None, answer, dt)
        )
        return self.out(features) * answer[..., None], (inner, said, answering)

    beam = _beam
