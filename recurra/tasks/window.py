"""What tasks of a window share: answers at every step about the last 2, 3, ... bits, one head for each length.

How long a memory is needed is one number here, and everything else stays the same.
"""

import abc
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from recurra.shapes import Float, Int, Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, rows


class Window(Task):
    """A subclass says how bits are drawn and what the answers are.

    Head h answers about the last h + 2 bits; the model's output is two logits for each head, `(B, T, 2 H)`. Steps count
    from where the longest window is full.
    """

    head = "language_model"
    measure = "accuracy"
    lower_is_better = False

    def __init__(self, name: str, longest: int) -> None:
        if longest < 2:
            raise SourceError(f"longest is {longest}: a window has at least 2 bits")
        self.config = {"task": name, "longest": longest}
        self.longest = longest

    @abc.abstractmethod
    def draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Bits `(B, T)`."""

    @abc.abstractmethod
    def answer(self, bits: Int[Tensor, "B T"], window: int) -> Int[Tensor, "B T"]:
        """The answer about the last `window` bits at every step; before the first bit all were 0."""

    @property
    def chance(self) -> float:
        """A fair coin's."""
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": 2 * (self.longest - 1), "tied": False}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < self.longest:
            raise SourceError(f"a window of {self.longest} takes at least {self.longest} steps, not {length}")
        bits = torch.from_numpy(rows(self.draw, split, index, size, length, seed))
        scored = (torch.arange(length) >= self.longest - 1).expand(size, length)
        return Batch(bits, self._answers(bits), scored, begins(size, length) if carried else None)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.heads(outputs, batch)[0].sum()

    def heads(self, outputs: Float[Tensor, "B T V"], batch: Batch) -> tuple[Float[Tensor, " H"], Float[Tensor, " H"]]:
        """The mean surprise in nats of each head, and how often each is right."""
        logits, targets = self._counted(outputs, batch)
        surprise = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        right = (logits.argmax(-1) == targets).to(logits.dtype)
        return surprise.mean(0), right.mean(0)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        logits, targets = self._counted(outputs, batch)
        return float((logits.argmax(-1) == targets).sum()), float(targets.numel())

    def solve(self, batch: Batch) -> Tensor:
        return 30.0 * F.one_hot(self._answers(batch.inputs), 2).float().flatten(-2)

    def _answers(self, bits: Int[Tensor, "B T"]) -> Int[Tensor, "B T H"]:
        return torch.stack([self.answer(bits, window) for window in range(2, self.longest + 1)], -1)

    def _counted(self, outputs: Tensor, batch: Batch) -> tuple[Float[Tensor, "N H 2"], Int[Tensor, "N H"]]:
        assert batch.scored is not None
        return outputs[batch.scored].unflatten(-1, (-1, 2)).float(), batch.targets[batch.scored]
