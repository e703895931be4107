"""Copying: hold a few symbols through a long silence. It asks how long a memory lasts, and how much it holds."""

import numpy as np
import torch

from recurra.tasks.base import Batch
from recurra.tasks.draws import begins, rows
from recurra.tasks.queue import Queue


class Copying(Queue):
    """Read some symbols, wait, and say them again in order when the marker has come.

        symbols   blank ... blank   marker   blank ... blank
                                             symbols

    Hochreiter and Schmidhuber 1997; in this form Arjovsky, Shah and Bengio 2016, https://arxiv.org/abs/1511.06464.
    Only the steps after the marker count, so chance is exactly 1 / symbols. Tokens: 0 is the blank, 1 to `symbols`
    the symbols, `symbols` + 1 the marker. A longer row is a longer wait.

    Args:
        symbols: how many different symbols there are.
        items: how many are to be remembered.
    """

    def __init__(self, *, symbols: int = 8, items: int = 10) -> None:
        super().__init__("copying", symbols, items)

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        scored = self.answered(size, length)
        items = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        inputs = torch.zeros(size, length, dtype=torch.int64)
        inputs[:, : self.items] = items
        inputs[:, -self.items - 1] = self.marker
        targets = torch.zeros_like(inputs)
        targets[:, -self.items :] = items
        return Batch(inputs, targets, scored, begins(size, length) if carried else None)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        return random.integers(1, self.symbols + 1, (size, self.items))
