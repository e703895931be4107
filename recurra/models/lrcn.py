"""Frames in, a class at every frame: a convolutional network sees, a recurrent one remembers."""

from typing import Any, ClassVar

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.shapes import Float, State, Tensor


class Frames(nn.Module):
    """Two strided convolutions and a projection: a frame `(F, height, width)` to features `(D,)`."""

    def __init__(self, shape: list[int], width: int, channels: int) -> None:
        super().__init__()
        planes, height, across = shape
        self.first = nn.Conv2d(planes, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        places = -(-height // 4) * -(-across // 4)
        self.out = nn.Linear(2 * channels * places, width)

    def forward(self, x: Float[Tensor, "N F h w"]) -> Float[Tensor, "N D"]:
        return self.out(F.relu(self.second(F.relu(self.first(x)))).flatten(1))


class LRCN(Model):
    r"""A class at every frame of a film, from features of a convolutional network that a mixer remembers.

    .. math::
        \phi_t = \operatorname{conv}(x_t) \qquad h_t = \operatorname{mix}(\phi_t, h_{t-1}) \qquad
        p(\text{class} \mid x_{\le t}) = \operatorname{softmax}(W h_t)

    `logits, state = model(x, state, clock)`: `(B, T, F, height, width)` to `(B, T, classes)`. A film's class is the
    mean of its frames' probabilities. Donahue et al. 2015, https://arxiv.org/abs/1411.4389. Unlike the paper the
    convolutions are two, untrained before, and any mixer may remember, in blocks with an MLP.

    State: the backbone's; the law holds.

    Args:
        inputs: a frame's channels, height and width.
        classes: how many there are.
        channels: of the first convolution; the second has twice as many.
        width, depth, pattern, mixers, hidden, dropout: of the backbone.
    """

    name: ClassVar[str] = "lrcn"

    def __init__(
        self,
        *,
        inputs: list[int],
        classes: int,
        width: int,
        depth: int,
        channels: int = 8,
        pattern: str = "lstm",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.frames = Frames(inputs, width, channels)
        self.backbone = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, classes)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.backbone.grows

    def initial_state(self, batch: int) -> State:
        """The state before the first frame."""
        return self.backbone.initial_state(batch)

    def forward(
        self, x: Float[Tensor, "B T F h w"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T classes"], State]:
        seen = self.frames(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        features, state = self.backbone(seen, state, clock)
        return self.out(features), state
