"""Thinking deeper, not longer: one block again and again over the whole sequence, before anything is said."""

import itertools
from typing import Any, ClassVar

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models.backbone import GatedMLP, build_mixer, hidden_of, layers
from recurra.models.base import Model
from recurra.models.generate import generate as _generate, stream as _stream
from recurra.shapes import Float, Int, State, Tensor


class DepthRecurrent(Model):
    r"""A language model that thinks in silence: one block, looped, and only what it says at the end is judged.

    .. math::
        u = h^i + m_i \qquad v = u + \gamma_1 \odot \operatorname{mix}(\operatorname{norm} u) \qquad
        \tilde h = v + \gamma_2 \odot \operatorname{MLP}(\operatorname{norm} v)

    .. math::
        z = \sigma(W [\tilde h; h^i] + b) \qquad h^{i+1} = z \odot \tilde h + (1 - z) \odot h^i

    Chen 2026, https://arxiv.org/abs/2603.21676. At the start b = -2 and :math:`\gamma` = `scale`, so a loop nearly
    changes nothing and gradients survive many. While training, every call draws its number of loops from `trained`;
    the loss sees the last loop only. More loops than were trained may solve what is deeper than what was trained.

    Unlike the paper, the block's mixer is any causal one, and not attention in both directions, so the model streams
    and obeys the law; an answer is read at the last step, not at a first token; the marks :math:`m_i` start at zero;
    norms are RMS norms, the MLP is gated, and the read-out is linear. The paper's task of graphs masks attention by
    the graph; here graphs are text as well (`recurra.tasks.GraphReachability`).

    `logits, state = model(tokens, state, clock)`. State: a tuple with the mixer's state for each loop; a state that
    was begun with some number of loops goes on with as many. The law holds for `eval()`, where loops are not drawn.

    Args:
        vocabulary: how many tokens there are.
        width: features of the stream (D).
        pattern: the block's mixer, or several for as many blocks in a row, such as "attention" or "mamba2*2".
        mixers: keywords of mixers, by name.
        hidden: of the MLP; None: 8/3 of the width.
        loops: when not training.
        trained: the fewest and the most loops while training.
        limit: the most loops there can ever be: each has a mark :math:`m_i` of its own, and marks of loops that were
            never trained are zero.
        scale: :math:`\gamma` at the start (LayerScale; Touvron et al. 2021, https://arxiv.org/abs/2103.17239).
        dropout: on the embedding and on what each branch adds.

    Raises:
        ValueError: the numbers of loops are not in order.
    """

    name: ClassVar[str] = "depth_recurrent"

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        pattern: str = "attention",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        loops: int = 10,
        trained: list[int] | tuple[int, int] = (4, 16),
        limit: int = 32,
        scale: float = 1e-4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        least, most = trained
        if not (1 <= least <= most <= limit and 1 <= loops <= limit):
            raise ValueError(
                f"loops is {loops}, trained {tuple(trained)} and limit {limit}: all must be at least 1, in order, and "
                "at most the limit"
            )
        self.loops, self.trained = loops, (least, most)
        self.embedding = nn.Embedding(vocabulary, width)
        self.embedding_norm = nn.RMSNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.marks = nn.Parameter(torch.zeros(limit, width))
        mixers, hidden = mixers or {}, hidden_of(width, hidden)
        self.blocks: Any = nn.ModuleList(
            ScaledBlock(build_mixer(name, width, mixers.get(name, {})), width, hidden, scale, dropout)
            for name in layers(pattern, 0, mixers)
        )
        self.gate = nn.Linear(2 * width, width)
        nn.init.constant_(self.gate.bias, -2.0)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.out = nn.Linear(width, vocabulary)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return any(block.mixer.grows for block in self.blocks)

    def initial_state(self, batch: int, loops: int | None = None) -> State:
        """The state before the first token, for that many loops; None: as many as when not training."""
        one = tuple(block.mixer.initial_state(batch) for block in self.blocks)
        return tuple(itertools.repeat(one, self.loops if loops is None else loops))

    def think(
        self, h: Float[Tensor, "B T D"], loop: int, state: State, clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """One loop."""
        new, after = h + self.marks[loop], []
        for block, before in zip(self.blocks, state, strict=True):
            new, own = block(new, before, clock)
            after.append(own)
        share = torch.sigmoid(self.gate(torch.cat([new, h], -1)))
        return share * new + (1 - share) * h, tuple(after)

    def features(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The stream after the last loop, normalised."""
        states = self.initial_state(len(tokens), self._drawn()) if state is None else state
        if len(states) > len(self.marks):
            raise ValueError(f"there are {len(states)} loops in this state, and the limit is {len(self.marks)}")
        h, after = self.dropout(self.embedding_norm(self.embedding(tokens))), []
        for loop, before in enumerate(states):
            h, own = self.think(h, loop, before, clock)
            after.append(own)
        return self.norm(h), tuple(after)

    def read(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B vocabulary"]:
        """Features to logits."""
        return self.out(features)

    def forward(
        self, tokens: Int[Tensor, "B T"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T vocabulary"], State]:
        features, state = self.features(tokens, state, clock)
        return self.read(features), state

    def _drawn(self) -> int:
        """How many loops this call has."""
        least, most = self.trained
        return int(torch.randint(least, most + 1, ())) if self.training else self.loops

    generate = _generate
    stream = _stream


class ScaledBlock(nn.Module):
    """A pre-norm block, of which each branch is scaled by feature, at the start to almost nothing."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width, eps=1e-6)
        self.mixer: Any = mixer
        self.mixer_scale = nn.Parameter(torch.full((width,), scale))
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.mlp = GatedMLP(width, hidden)
        self.mlp_scale = nn.Parameter(torch.full((width,), scale))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        mixed, state = self.mixer(self.mixer_norm(x), state, clock)
        x = x + self.dropout(self.mixer_scale * mixed)
        return x + self.dropout(self.mlp_scale * self.mlp(self.mlp_norm(x))), state
