"""Modular counting: parity's bigger sister. A state must turn in a circle of m places, not fade and not grow."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class ModularCounting(Choices):
    r"""Keep a count that starts again at m: every step adds 0 to m - 1, and the count is asked for at every step.

    .. math::  y_t = (x_1 + x_2 + \dots + x_t) \bmod m

    The word problem of the cyclic group Z_m; as a test of recurrences: Delétang et al. 2023,
    https://arxiv.org/abs/2207.02098, and Merrill et al. 2024, https://arxiv.org/abs/2404.08819. What is added is
    uniform, so the count is uniform at every step, and chance is exactly 1/m.

    Args:
        modulus: m, at least 2.
    """

    def __init__(self, *, modulus: int = 5) -> None:
        if modulus < 2:
            raise SourceError(f"modulus is {modulus}: it must be at least 2")
        self.config = {"task": "modular_counting", "modulus": modulus}
        self.modulus = modulus

    @property
    def chance(self) -> float:
        return 1 / self.modulus

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.modulus}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        added = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        return Batch(added, added.cumsum(1) % self.modulus, reset=begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        # the cyclic group as a table of moves, walked one step at a time
        table = torch.stack([torch.arange(self.modulus).roll(-shift) for shift in range(self.modulus)])
        place, answers = torch.zeros_like(batch.inputs[:, 0]), []
        for move in batch.inputs.unbind(1):
            place = table[move, place]
            answers.append(place)
        return certain(torch.stack(answers, 1), self.modulus)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        return random.integers(0, self.modulus, (size, length))
