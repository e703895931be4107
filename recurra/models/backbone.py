"""A pattern of mixers repeated to depth, each in a pre-norm residual block. One stack for every architecture."""

import difflib
import inspect
import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least, of_types
from recurra.clock import Clock
from recurra.memory import MEMORIES
from recurra.mixers import MIXERS, Mixer
from recurra.parts.experts import Experts
from recurra.shapes import Float, State, Tensor


def parse(pattern: str, known: Any = MIXERS, kind: str = "mixer") -> list[str]:
    """The mixers that a pattern names, in order: "mamba2*3,sliding_window" is three of one and one of the other.

    Raises:
        ValueError: it names none of the `known` (the nearest is given), or is not of that form.
    """
    names = []
    for part in pattern.split(","):
        match = re.fullmatch(r"\s*([a-z0-9_]+)\s*(?:\*\s*([1-9][0-9]*))?\s*", part)
        if match is None:
            raise ValueError(f"{pattern!r} is not a pattern: write names and counts, such as mamba2*3,sliding_window")
        name, times = match[1], int(match[2] or 1)
        if name not in known:
            seen = "`recurra list` shows them all" if known is MIXERS else f"there are {', '.join(known)}"
            raise ValueError(f"there is no {kind} {name!r}{nearest(name, known)}; {seen}")
        names += [name] * times
    return names


def layers(
    pattern: str, depth: int, keywords: dict[str, dict[str, Any]], known: Any = MIXERS, kind: str = "mixer"
) -> list[str]:
    """A pattern's names, repeated until there are `depth`; 0: once.

    Raises:
        ValueError: as `parse`, or keywords are given for a name that the pattern has not, or that takes none.
    """
    names = parse(pattern, known, kind)
    for name in keywords:
        if name not in names or name in (*MLPS, "none"):
            raise ValueError(f"keywords are given for {name!r}, but the pattern {pattern!r} has none")
    return [names[i % len(names)] for i in range(depth or len(names))]


def hidden_of(width: int, hidden: int | None) -> int:
    """Units of an MLP: as many as were asked for, or 8/3 of the width, to a multiple of 8."""
    return round(width / 3) * 8 if hidden is None else hidden


def nearest(word: str, words: Any) -> str:
    """ ", did you mean ...?" for a word that is not among `words`; nothing where none is near."""
    found = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {found[0]!r}?" if found else ""


def build_mixer(name: str, width: int, keywords: dict[str, Any], table: Any = MIXERS) -> Any:
    """A mixer, or a row of another table, with its keywords.

    Raises:
        ValueError: it has no such keyword (the nearest is given), or the values do not fit.
    """
    known = [x for x in inspect.signature(table[name]).parameters if x != "width"]
    for keyword in keywords:
        if keyword not in known:
            has = f"; it has {', '.join(known)}" if known else ""
            raise ValueError(f"{name} has no keyword {keyword!r}{nearest(keyword, known)}{has}")
    of_types(table[name], keywords)
    return table[name](width, **keywords)


def place(layers: list[str], index: int) -> dict[str, int]:
    """Keywords that say where a mixer stands, for mixers that ask.

    `layer` is which of those of its kind it is, of `depth`; `stack` is how many blocks there are of every kind.
    """
    name = layers[index]
    known = inspect.signature(MIXERS[name]).parameters
    facts = {"layer": layers[:index].count(name), "depth": layers.count(name), "stack": len(layers)}
    return {key: value for key, value in facts.items() if key in known}


class GatedMLP(nn.Module):
    """Two projections multiplied, one through SiLU, and a third back: y = W_o (silu(W_g x) * W_v x).

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inside = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        gate, value = self.inside(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class SquaredMLP(nn.Module):
    """Two projections with the square of a ReLU between: y = W_o max(0, W_i x)^2.

    Source: So et al. 2021, https://arxiv.org/abs/2109.08668.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inside = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.out(F.relu(self.inside(x)).square())


MLPS: dict[str, type[nn.Module]] = {"mlp": GatedMLP, "squared_mlp": SquaredMLP}
CHOOSING: dict[str, type[nn.Module]] = {**MEMORIES, "experts": Experts}


def _feed_forward(name: str, width: int, hidden: int, memories: dict[str, dict[str, Any]]) -> nn.Module | None:
    """A memory, experts, an MLP, or, where there is to be none or it is to have no units, nothing."""
    if name in CHOOSING:
        return build_mixer(name, width, memories.get(name, {}), CHOOSING)
    return MLPS[name](width, hidden) if hidden and name != "none" else None


def _once(layers: list[str], after: list[str], shared: list[str]) -> list[int]:
    """For each block of a stack the first that it is one with: itself, where its mixer is not `shared`.

    Raises:
        ValueError: a shared mixer is none of the stack's, or is not followed by the same layer everywhere.
    """
    for name in shared:
        if name not in layers:
            raise ValueError(f"{name!r} is to be shared, but the pattern has none")
        kinds = {after[i] for i, layer in enumerate(layers) if layer == name}
        if len(kinds) > 1:
            raise ValueError(f"{name!r} is shared: one block cannot be followed by {' and by '.join(sorted(kinds))}")
    return [layers.index(name) if name in shared else i for i, name in enumerate(layers)]


class Block(nn.Module):
    """A mixer over time, then a gated MLP, or a memory, at each step; both read a norm of the stream and add to it."""

    def __init__(self, mixer: Mixer, width: int, mlp: nn.Module | None, dropout: float) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width, eps=1e-6)
        self.mixer: Any = mixer
        self.mlp_norm = None if mlp is None else nn.RMSNorm(width, eps=1e-6)
        self.mlp: Any = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None, first: Tensor | None
    ) -> tuple[Float[Tensor, "B T D"], State, Tensor | None]:
        """The stream, the state, and what later mixers of the kind read: `first` or, without, what this one shares."""
        normal = self.mixer_norm(x)
        mixed, after = self.mixer(normal, state, clock, first)
        if self.mixer.shares and first is None:
            first = self.mixer.share(normal, state, clock)
        x = x + self.dropout(mixed)
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x, after, first


def through(
    blocks: list[Block], x: Float[Tensor, "B T D"], states: State, clock: Clock | None
) -> tuple[Float[Tensor, "B T D"], State]:
    """The stream after some blocks in order, and their states; what the first of a kind shares the later ones read."""
    after, firsts = [], {}
    for block, before in zip(blocks, states, strict=True):
        kind = type(block.mixer)
        x, new, firsts[kind] = block(x, before, clock, firsts.get(kind))
        after.append(new)
    return x, tuple(after)


class Backbone(nn.Module):
    """The stack. State: a tuple with the state of the mixer at each depth, also where several depths share a block.

    Mixers that take `layer` and `depth` are told which of those of their kind they are. What the first mixer of a kind
    that `shares` has to share is given to the later ones at the same steps: it is no state.

    Args:
        width: features of the stream (D).
        depth: blocks.
        pattern: mixers in order, repeated until there are `depth`.
        mixers: keywords of mixers, by name.
        hidden: of each block's MLP; None: 8/3 of the width, to a multiple of 8; 0: no MLP.
        dropout: on what each branch adds, while training.
        feed_forward: what follows the mixers, in order and repeated: "mlp", "squared_mlp", "none", "experts", or
            memories by name, such as "mlp*3,product_key_memory".
        memories: keywords of memories and experts, by name.
        shared: mixers that have one block, the same weights at every depth where the pattern has them (Glorioso et al.
            2024, https://arxiv.org/abs/2405.16712).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        pattern: str,
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        feed_forward: str = "mlp",
        memories: dict[str, dict[str, Any]] | None = None,
        shared: list[str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, width=width, depth=depth)
        mixers, memories, hidden = mixers or {}, memories or {}, hidden_of(width, hidden)
        names = layers(pattern, depth, mixers)
        after = layers(feed_forward, depth, memories, (*CHOOSING, *MLPS, "none"), "feed-forward layer")
        once = _once(names, after, shared or [])
        own = sorted(set(once))
        # which of the blocks stands at each depth; None: each at its own
        self.order = [own.index(i) for i in once] if shared else None
        names, after = ([some[i] for i in own] for some in (names, after))
        placed = [place(names, i) | mixers.get(name, {}) for i, name in enumerate(names)]
        self.blocks: Any = nn.ModuleList(
            Block(build_mixer(name, width, keywords), width, _feed_forward(kind, width, hidden, memories), dropout)
            for name, keywords, kind in zip(names, placed, after, strict=True)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self._scale_outputs(depth)

    @property
    def grows(self) -> bool:
        """Whether any part's state grows with the sequence."""
        return any(block.mixer.grows for block in self.blocks)

    @property
    def timed(self) -> bool:
        """Whether every part honours `Clock.dt`."""
        return all(block.mixer.timed for block in self.blocks)

    @property
    def stack(self) -> "list[Block]":
        """The blocks as the stream meets them: one that several depths share comes several times."""
        return list(self.blocks) if self.order is None else [self.blocks[i] for i in self.order]

    def initial_state(self, batch: int) -> State:
        """The state before the first step."""
        return tuple(block.mixer.initial_state(batch) for block in self.stack)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, state = through(self.stack, x, self.initial_state(len(x)) if state is None else state, clock)
        return self.norm(x), state

    @torch.no_grad()
    def _scale_outputs(self, depth: int) -> None:
        """MLPs add less the deeper the stack, so that the stream keeps its size (Radford et al. 2019)."""
        for block in self.blocks:
            if block.mlp is not None:
                block.mlp.out.weight.mul_((2 * depth) ** -0.5)
