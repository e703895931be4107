"""Frames in, labels out, where nobody says which frame is which label: connectionist temporal classification."""

from typing import Any, ClassVar

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models.base import Model
from recurra.models.both_ways import BothWays
from recurra.models.labellings import best_path, prefix_beam
from recurra.shapes import Float, State, Tensor


class CTC(Model):
    r"""What is said at every frame, by a network that has heard before and after: a label, or the blank.

    .. math::
        p(l \mid x) = \sum_{\pi \in B^{-1}(l)} \prod_t \operatorname{softmax}(\text{logits}_t)_{\pi_t}

    with B joining equal neighbours and dropping blanks. `logits, state = model(x, state, clock)`: `(B, T, inputs)` to
    `(B, T, labels + 1)`; class 0 is the blank. Graves et al. 2006, https://doi.org/10.1145/1143844.1143891; for speech
    Hannun et al. 2014, https://arxiv.org/abs/1408.2873. Unlike the latter the frames' own layers are one projection,
    any mixer reads from either end, in blocks with an MLP, and there are no clipped rectifiers.

    State: (), for it cannot stream: the last frame's future is not known before the end. A call is whole sequences.

    Args:
        inputs: features of a frame.
        labels: how many there are; they are 1 to this.
        width, depth, pattern, mixers, hidden, dropout: of the stack, two mixers a block.
    """

    name: ClassVar[str] = "ctc"
    grows: ClassVar[bool] = False
    streams: ClassVar[bool] = False

    def __init__(
        self,
        *,
        inputs: int,
        labels: int,
        width: int,
        depth: int,
        pattern: str = "lstm",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.stack = BothWays(width, depth, pattern, mixers or {}, hidden, dropout)
        self.out = nn.Linear(width, labels + 1)

    def initial_state(self, batch: int) -> State:
        """Nothing is remembered between calls."""
        return ()

    def forward(
        self, x: Float[Tensor, "B T F"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T C"], State]:
        """Run over whole sequences.

        Raises:
            ValueError: a state is given.
        """
        if state is not None:
            raise ValueError(
                "CTC cannot go on from a state: it reads from the end too, which a stream does not have yet. "
                "Give it whole sequences"
            )
        return self.out(self.stack(self.embedding(x), clock)), ()

    @torch.no_grad()
    def read(
        self, x: Float[Tensor, "B T F"], clock: Clock | None = None, *, width: int | None = None
    ) -> list[list[int]]:
        """The labels of each row: those of the likeliest path, or with `width` those of a search over labellings."""
        logits, _ = self(x, None, clock)
        valid = None if clock is None else clock.valid
        if width is None:
            return best_path(logits, valid)
        rows = list(logits) if valid is None else [row[mine] for row, mine in zip(logits, valid, strict=True)]
        return [prefix_beam(row, width)[0] for row in rows]
