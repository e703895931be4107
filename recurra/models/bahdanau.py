"""Encoder and decoder with attention between them: the source is kept whole, and each step looks where it needs to."""

from typing import Any, ClassVar

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.beam import beam as _beam
from recurra.models.both_ways import BothWays
from recurra.models.pairs import between_resets, phases
from recurra.shapes import Bool, Float, Int, State, Tensor, state_zeros


class AdditiveAttention(nn.Module):
    r"""How much each place of a memory answers a query, and the mean of the memory by those shares.

    .. math::
        e_{ij} = v^\top \tanh(W s_{i-1} + U h_j) \qquad \alpha_i = \operatorname{softmax}_j(e_{ij}) \qquad
        c_i = \textstyle\sum_j \alpha_{ij} h_j

    Bahdanau, Cho & Bengio 2015, https://arxiv.org/abs/1409.0473. Where nothing is known the mean is zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(
        self,
        query: Float[Tensor, "B D"],
        memory: Float[Tensor, "B S D"],
        keys: Float[Tensor, "B S D"],
        known: Bool[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B S"]]:
        """The context and the shares; `keys` are `self.key(memory)`, the same for all queries."""
        asked = self.query(query.to(self.query.weight.dtype))
        energy = torch.tanh(asked[:, None] + keys) @ self.score.to(keys.dtype)
        energy = energy.masked_fill(~known, torch.finfo(energy.dtype).min)
        share = energy.softmax(-1) * known
        return (share[:, None].to(memory.dtype) @ memory)[:, 0], share


class Bahdanau(Model):
    r"""A source is read from both ends and kept; the writer looks at it anew before each token.

    .. math::
        h = \operatorname{encode}(x) \qquad
        c_i = \operatorname{attend}(s_{i-1}, h) \qquad s_i = \operatorname{decode}([y_{i-1}, c_i], s_{i-1}) \qquad
        p(y_i) = \operatorname{softmax}(W [s_i, c_i])

    `logits, state = model(tokens, state, clock)` over rows `source go answer`: `(B, T)` to `(B, T, vocabulary)`, zero
    at the source's steps; `align` gives the shares. Bahdanau, Cho & Bengio 2015, https://arxiv.org/abs/1409.0473.
    Unlike the paper any mixer may read and write, in blocks with an MLP; the query is what the decoder put out at the
    step before, and at the first step :math:`\tanh(W h_1)`, where the paper starts the decoder's own state so; the
    tokens of both sides are one vocabulary.

    State: the decoder's; the query `(B, D)`; the memory and its keys, `(B, S, D)` each; which places are known `(B, S)`
    and whether the answer has begun `(B, 1)`, both bool. A source comes in one call, as it is read from its end too;
    the answer may be cut anywhere.

    Args:
        vocabulary: how many tokens there are.
        go: the token that begins the answer.
        source: the longest source (S).
        width, depth, pattern, mixers, hidden, dropout: of the encoder, and of the decoder.
    """

    name: ClassVar[str] = "bahdanau"

    def __init__(
        self,
        *,
        vocabulary: int,
        go: int,
        source: int,
        width: int,
        depth: int,
        pattern: str = "gru",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.go, self.source = go, source
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.encoder = BothWays(width, depth, pattern, mixers or {}, hidden, dropout)
        self.first = nn.Linear(width, width)
        self.attention = AdditiveAttention(width)
        self.way_in = nn.Linear(2 * width, width)
        self.decoder = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(2 * width, vocabulary)

    @property
    def grows(self) -> bool:
        """Whether the decoder's state grows with the answer."""
        return self.decoder.grows

    def initial_state(self, batch: int) -> State:
        """Nothing is known, and no answer has begun."""
        weight = self.first.weight
        memory = state_zeros(weight, batch, self.source, len(weight))
        known = torch.zeros(batch, self.source, dtype=torch.bool, device=weight.device)
        query = self.decoder.initial_state(batch), torch.zeros_like(memory[:, 0])
        return *query, memory, memory.clone(), known, known[:, :1].clone()

    def forward(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T vocabulary"], State]:
        """Run over tokens from `state`.

        Raises:
            ValueError: a source is longer than there are places, or comes in pieces.
        """
        return self._run(self._logits, tokens, state, clock)

    def align(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> Float[Tensor, "B T S"]:
        """How much of each place of the source every step of the answer looked at; zero at the source's steps."""
        return self._run(self._shares, tokens, state, clock)[0]

    def _run(self, run: Any, tokens: Tensor, state: State | None, clock: Clock | None) -> tuple[Tensor, State]:
        initial = self.initial_state(len(tokens))
        return between_resets(run, tokens, initial if state is None else state, initial, clock)

    def _logits(self, tokens: Tensor, state: State, clock: Clock | None) -> tuple[Tensor, State]:
        return self._piece(tokens, state, clock)[:2]

    def _shares(self, tokens: Tensor, state: State, clock: Clock | None) -> tuple[Tensor, State]:
        _, state, shares = self._piece(tokens, state, clock)
        return shares, state

    def _piece(self, tokens: Tensor, state: State, clock: Clock | None) -> tuple[Tensor, State, Tensor]:
        """Steps without resets: logits, state and shares."""
        *inside, answering = state
        x = self.dropout(self.embedding(tokens))
        outputs, shares = [], []
        if tokens.shape[1]:
            source, answer, answering = phases(tokens, self.go, answering, clock)
            if bool(source.any()):
                inside = self._read(x, source, inside)
            columns = zip(x.unbind(1), answer.split(1, 1), answer.any(0).tolist(), strict=True)
            for now, mine, some in columns:
                output, share = x.new_zeros(len(x), self.out.out_features), x.new_zeros(len(x), self.source)
                if some:
                    output, share, inside = self._write(now, mine, inside)
                outputs.append(output)
                shares.append(share)
        else:
            outputs, shares = [x.new_zeros(len(x), self.out.out_features)], [x.new_zeros(len(x), self.source)]
        length = tokens.shape[1]
        return torch.stack(outputs, 1)[:, :length], (*inside, answering), torch.stack(shares, 1)[:, :length]

    def _read(self, x: Float[Tensor, "B T D"], source: Bool[Tensor, "B T"], inside: list[Any]) -> list[Any]:
        """What is known after a source, for the rows that have one."""
        inner, query, memory, keys, known = inside
        counts, mine = source.sum(1), source.any(1)
        if int(counts.max()) > self.source:
            raise ValueError(f"a source has {int(counts.max())} tokens: this model has room for {self.source}")
        if bool((known.any(1) & mine).any()):
            raise ValueError("a source goes on from an earlier call: it is read from its end too, so give it whole")
        read = self.encoder(x, Clock(valid=source)).to(memory.dtype)
        order = torch.argsort((~source).to(torch.uint8), dim=1, stable=True)[:, : self.source]
        places = read.gather(1, order[..., None].expand(-1, -1, read.shape[-1]))
        places = nn.functional.pad(places, (0, 0, 0, self.source - places.shape[1]))
        new = torch.arange(self.source, device=x.device) < counts[:, None]
        memory = torch.where(new[..., None], places, memory)
        keys = torch.where(new[..., None], self.attention.key(memory.to(x.dtype)).to(keys.dtype), keys)
        start = torch.tanh(self.first(memory[:, 0].to(x.dtype))).to(query.dtype)
        return [inner, torch.where(mine[:, None], start, query), memory, keys, known | new]

    def _write(
        self, now: Float[Tensor, "B D"], mine: Bool[Tensor, "B 1"], inside: list[Any]
    ) -> tuple[Tensor, Tensor, list[Any]]:
        """One step of the answer, for the rows whose step it is: logits, shares and what is known after it."""
        inner, query, memory, keys, known = inside
        context, share = self.attention(query, memory, keys, known)
        context = context.to(now.dtype)
        said, inner = self.decoder(self.way_in(torch.cat([now, context], -1))[:, None], inner, Clock(valid=mine))
        query = torch.where(mine, said[:, 0].to(query.dtype), query)
        output = self.out(torch.cat([said[:, 0].to(context.dtype), context], -1))
        return output * mine, share * mine, [inner, query, memory, keys, known]

    beam = _beam
