"""Latching: hold one thing while everything that could be mistaken for it goes by."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class Latching(Choices):
    r"""Say at every step which token the row began with, whatever comes after it.

    .. math::  y_t = x_1

    One of the three synthetic tasks of Ronca 2026, https://arxiv.org/abs/2605.06384. The first token is one of the
    first `symbols`, and each later one any of the vocabulary, those `symbols` among them: nothing but its place tells
    what is to be kept. All are uniform, so chance is exactly 1 / symbols. A longer row is a longer wait.

    Args:
        symbols: what the first token may be.
        vocabulary: what the later tokens may be, `symbols` or more.
    """

    def __init__(self, *, symbols: int = 4, vocabulary: int = 20) -> None:
        if not 2 <= symbols <= vocabulary:
            raise SourceError(f"symbols is {symbols}: they must be at least 2 and at most the vocabulary, {vocabulary}")
        self.config = {"task": "latching", "symbols": symbols, "vocabulary": vocabulary}
        self.symbols, self.vocabulary = symbols, vocabulary

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        tokens = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        return Batch(tokens, tokens[:, :1].repeat(1, length), reset=begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        answers = [[row[0]] * len(row) for row in batch.inputs.tolist()]
        return certain(torch.tensor(answers), self.vocabulary)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        tokens = random.integers(0, self.vocabulary, (size, length))
        tokens[:, 0] = random.integers(0, self.symbols, size)
        return tokens
