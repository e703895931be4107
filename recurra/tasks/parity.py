"""Parity: the smallest thing that decays cannot do. A state that only fades or adds up loses it as rows get longer."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class Parity(Choices):
    r"""Say at every step whether the ones so far are odd or even.

    .. math::  y_t = x_1 \oplus x_2 \oplus \dots \oplus x_t

    Minsky and Papert, 1969, *Perceptrons*; as a test of recurrences: Grazzi et al. 2024,
    https://arxiv.org/abs/2411.12537. Bits are fair, so at every step the answer is 1 half of the time, and chance
    is exactly 1/2. Any length will do for training and another for testing.
    """

    def __init__(self) -> None:
        self.config = {"task": "parity"}

    @property
    def chance(self) -> float:
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": 2}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        bits = torch.from_numpy(rows(_draw, split, index, size, length, seed))
        return Batch(bits, bits.cumsum(1) % 2, reset=begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        odd, answers = torch.zeros_like(batch.inputs[:, 0]), []
        for bit in batch.inputs.unbind(1):
            odd = odd ^ bit
            answers.append(odd)
        return certain(torch.stack(answers, 1), 2)


def _draw(random: np.random.Generator, size: int, length: int) -> np.ndarray:
    return random.integers(0, 2, (size, length))
