"""A pattern of mixers repeated to depth, each in a pre-norm residual block. One stack for every architecture."""

import difflib
import inspect
import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers import MIXERS, Mixer
from recurra.shapes import Float, State, Tensor


def parse(pattern: str) -> list[str]:
    """The mixers that a pattern names, in order: "mamba2*3,sliding_window" is three of one and one of the other.

    Raises:
        ValueError: it names no mixer that there is (the nearest is given), or is not of that form.
    """
    names = []
    for part in pattern.split(","):
        match = re.fullmatch(r"\s*([a-z0-9_]+)\s*(?:\*\s*([1-9][0-9]*))?\s*", part)
        if match is None:
            raise ValueError(f"{pattern!r} is not a pattern: write names and counts, such as mamba2*3,sliding_window")
        name, times = match[1], int(match[2] or 1)
        if name not in MIXERS:
            raise ValueError(f"there is no mixer {name!r}{nearest(name, MIXERS)}; `recurra list` shows them all")
        names += [name] * times
    return names


def nearest(word: str, words: Any) -> str:
    """ ", did you mean ...?" for a word that is not among `words`; nothing where none is near."""
    found = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {found[0]!r}?" if found else ""


def build_mixer(name: str, width: int, keywords: dict[str, Any]) -> Mixer:
    """A mixer with its keywords.

    Raises:
        ValueError: it has no such keyword (the nearest is given), or the values do not fit.
    """
    known = [x for x in inspect.signature(MIXERS[name]).parameters if x != "width"]
    for keyword in keywords:
        if keyword not in known:
            has = f"; it has {', '.join(known)}" if known else ""
            raise ValueError(f"{name} has no keyword {keyword!r}{nearest(keyword, known)}{has}")
    return MIXERS[name](width, **keywords)


def place(layers: list[str], index: int) -> dict[str, int]:
    """Keywords that say where a mixer stands, for mixers that ask.

    `layer` is which of those of its kind it is, of `depth`; `stack` is how many blocks there are of every kind.
    """
    name = layers[index]
    known = inspect.signature(MIXERS[name]).parameters
    facts = {"layer": layers[:index].count(name), "depth": layers.count(name), "stack": len(layers)}
    return {key: value for key, value in facts.items() if key in known}


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay must leave alone.

    Vectors (biases, norms, decays, time steps), and the matrices that a mixer names in its `undecayed`.
    """
    names = {name for name, p in model.named_parameters() if p.ndim < 2}
    for path, module in model.named_modules():
        if isinstance(module, Mixer):
            names |= {f"{path}.{own}" for own in module.undecayed}
    # a mixer may name parameters that only some of its forms have
    return names & {name for name, _ in model.named_parameters()}


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


class Block(nn.Module):
    """A mixer over time, then a gated MLP at each step; both read a norm of the stream and add to it."""

    def __init__(self, mixer: Mixer, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width, eps=1e-6)
        self.mixer: Any = mixer
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6) if hidden else None
        self.mlp = GatedMLP(width, hidden) if hidden else None
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


class Backbone(nn.Module):
    """The stack. State: a tuple with the state of each block's mixer.

    Mixers that take `layer` and `depth` are told which of those of their kind they are. What the first mixer of a kind
    that `shares` has to share is given to the later ones at the same steps: it is no state.

    Args:
        width: features of the stream (D).
        depth: blocks.
        pattern: mixers in order, repeated until there are `depth`.
        mixers: keywords of mixers, by name.
        hidden: of each block's MLP; None: 8/3 of the width, to a multiple of 8; 0: no MLP.
        dropout: on what each branch adds, while training.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        pattern: str,
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"width {width} and depth {depth} must be at least 1")
        names, mixers = parse(pattern), mixers or {}
        for name in mixers:
            if name not in names:
                raise ValueError(f"keywords are given for {name!r}, but the pattern {pattern!r} has none")
        hidden = round(width / 3) * 8 if hidden is None else hidden
        layers = [names[i % len(names)] for i in range(depth)]
        placed = (place(layers, i) | mixers.get(name, {}) for i, name in enumerate(layers))
        self.blocks: Any = nn.ModuleList(
            Block(build_mixer(name, width, keywords), width, hidden, dropout)
            for name, keywords in zip(layers, placed, strict=True)
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

    def initial_state(self, batch: int) -> State:
        """The state before the first step."""
        return tuple(block.mixer.initial_state(batch) for block in self.blocks)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        states: State = self.initial_state(len(x)) if state is None else state
        after, firsts = [], {}
        for block, before in zip(self.blocks, states, strict=True):
            kind = type(block.mixer)
            x, new, firsts[kind] = block(x, before, clock, firsts.get(kind))
            after.append(new)
        return self.norm(x), tuple(after)

    @torch.no_grad()
    def _scale_outputs(self, depth: int) -> None:
        """MLPs add less the deeper the stack, so that the stream keeps its size (Radford et al. 2019)."""
        for block in self.blocks:
            if block.mlp is not None:
                block.mlp.out.weight.mul_((2 * depth) ** -0.5)
