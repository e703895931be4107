"""A stack that reads whole sequences from both ends: what hears or reads before it writes."""

from typing import Any

from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.wrap import Bidirectional
from recurra.models.backbone import GatedMLP, build_mixer, hidden_of, layers
from recurra.shapes import Float, Tensor


class BothWays(nn.Module):
    """The stream after blocks of two mixers each, one from either end, and an MLP; it has no state and cannot stream.

    Args:
        width: features of the stream (D).
        depth: blocks.
        pattern: mixers in order, repeated until there are `depth` blocks.
        mixers: keywords of mixers, by name.
        hidden: of each block's MLP; None: 8/3 of the width, to a multiple of 8; 0: no MLP.
        dropout: on what each branch adds, while training.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        pattern: str,
        mixers: dict[str, dict[str, Any]],
        hidden: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        at_least(1, width=width, depth=depth)
        names, hidden = layers(pattern, depth, mixers), hidden_of(width, hidden)
        self.mixers: Any = nn.ModuleList(_pair(name, width, mixers.get(name, {})) for name in names)
        self.mlps: Any = nn.ModuleList(GatedMLP(width, hidden) for _ in names if hidden)
        self.norms: Any = nn.ModuleList(nn.RMSNorm(width, eps=1e-6) for _ in range(len(self.mixers) + len(self.mlps)))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"], clock: Clock | None = None) -> Float[Tensor, "B T D"]:
        """Run over whole sequences; the clock says where each begins and ends."""
        norms = iter(self.norms)
        for i, mixer in enumerate(self.mixers):
            x = x + self.dropout(mixer(next(norms)(x), None, clock)[0])
            if len(self.mlps):
                x = x + self.dropout(self.mlps[i](next(norms)(x)))
        return self.norm(x)


def _pair(name: str, width: int, keywords: dict[str, Any]) -> Bidirectional:
    forwards, backwards = (build_mixer(name, width, keywords) for _ in range(2))
    return Bidirectional(forwards, backwards, merge="sum")
