"""Induction: what followed the marker once? The memory must be written at one moment, and by what came just before."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, asked_at_the_end, certain
from recurra.tasks.draws import rows


class Induction(Choices):
    """When the marker comes a second time, at the end of the row, say the symbol that followed it the first time.

        symbol ... symbol   marker   symbol a   symbol ... symbol   marker
                                                                    symbol a

    Olsson et al. 2022, https://arxiv.org/abs/2209.11895; as a test of length Gu and Dao 2023,
    https://arxiv.org/abs/2312.00752; in this form one of the three synthetic tasks of Ronca 2026,
    https://arxiv.org/abs/2605.06384. The first marker is at one of the first `early` places, each as often, as far as
    the row has them. Only the last step counts. Symbols are uniform, so chance is exactly 1 / symbols. Tokens: 0 to
    `symbols` - 1 are the symbols, `symbols` is the marker. A longer row is a longer wait.

    Args:
        symbols: how many different symbols there are.
        early: places that the first marker may have.
    """

    def __init__(self, *, symbols: int = 16, early: int = 30) -> None:
        if symbols < 2 or early < 1:
            raise SourceError(f"symbols is {symbols} and early is {early}: they must be at least 2 and 1")
        self.config = {"task": "induction", "symbols": symbols, "early": early}
        self.symbols, self.early = symbols, early

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.symbols + 1}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 3:
            raise SourceError(f"induction takes at least 3 steps, not {length}")
        content = rows(self._draw, split, index, size, length, seed)
        first = (content == self.symbols).argmax(1)
        return asked_at_the_end(content, content[np.arange(size), first + 1].tolist(), carried)

    def solve(self, batch: Batch) -> Tensor:
        # the last thing that followed each token
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            after = {}
            for step, token in enumerate(row):
                answer[step] = after.get(token, 0)
                if step:
                    after[row[step - 1]] = token
        return certain(answers, self.symbols + 1)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        tokens = random.integers(0, self.symbols, (size, length))
        tokens[np.arange(size), random.integers(0, min(self.early, length - 2), size)] = self.symbols
        tokens[:, -1] = self.symbols
        return tokens
