"""Selective copying: the symbols are scattered, so a fixed delay is no help: one must choose what to keep."""

import numpy as np
import torch

from recurra.tasks.base import Batch
from recurra.tasks.draws import begins, rows
from recurra.tasks.queue import Queue


class SelectiveCopying(Queue):
    """Remember the symbols that lie scattered among blanks, and say them in order when the marker has come.

        blank symbol blank blank symbol ... marker   blank ... blank
                                                     symbols

    Jing et al. 2019, https://arxiv.org/abs/1706.02761; Gu and Dao 2023, https://arxiv.org/abs/2312.00752. Every set
    of places before the marker is equally likely. Only the steps after the marker count, so chance is exactly
    1 / symbols. Tokens: 0 is the blank, 1 to `symbols` the symbols, `symbols` + 1 the marker.

    Args:
        symbols: how many different symbols there are.
        items: how many are to be remembered.
    """

    def __init__(self, *, symbols: int = 14, items: int = 16) -> None:
        super().__init__("selective_copying", symbols, items)

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        scored = self.answered(size, length)
        inputs = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        targets = torch.zeros_like(inputs)
        items = inputs[:, : -self.items - 1]
        targets[:, -self.items :] = items[items > 0].reshape(size, self.items)
        return Batch(inputs, targets, scored, begins(size, length) if carried else None)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Rows with symbols at the places whose random numbers are smallest."""
        room = length - self.items - 1
        places = random.random((size, room)).argpartition(self.items - 1, axis=1)[:, : self.items]
        content = np.zeros((size, length), dtype=np.int64)
        np.put_along_axis(content, places, random.integers(1, self.symbols + 1, (size, self.items)), axis=1)
        content[:, room] = self.marker
        return content
