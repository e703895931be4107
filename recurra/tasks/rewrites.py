"""Keys whose values are written again and again: a memory must keep what is newest and let go of what it replaced."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class Rewrites(Choices):
    """Read pairs of a key and a value among filler, segment after segment; at the end, say each key's newest value.

        segment 1              segment 2              questions
        . . key value . . .    . key value . . . .    key     key
                                                      value   value

    The associative retrieval with rewrites of Rodkin et al. 2024, https://arxiv.org/abs/2407.04841. Every segment
    writes some of the keys, in any order and anywhere; a key that is written again loses its old value. The last
    `keys` steps ask for every key, in any order, and are the only ones that count, but for keys that were never
    written. One segment is a search for needles: each pair once, anywhere. Chance is exactly 1 / values. Tokens:
    `fillers` of filler, of which 0 alone is silence, then keys, then values. A longer row has longer segments.

    Args:
        keys: how many there are, and questions.
        values: how many there are.
        segments: of equal length, before the questions.
        writes: keys that each segment writes.
        fillers: kinds of filler, each as often.

    Raises:
        SourceError: one of them is less than 1, or there are more writes than keys, or a row is too short for them.
    """

    def __init__(self, *, keys: int = 4, values: int = 8, segments: int = 2, writes: int = 4, fillers: int = 1) -> None:
        self.config = {
            "task": "rewrites", "keys": keys, "values": values, "segments": segments, "writes": writes,
            "fillers": fillers,
        }  # fmt: skip
        for name, value in self.config.items():
            if name != "task" and value < 1:
                raise SourceError(f"{name} is {value}: it must be 1 or more")
        if writes > keys:
            raise SourceError(f"a segment cannot write {writes} of {keys} keys: give as many writes, or fewer")
        self.keys, self.values, self.segments, self.writes, self.fillers = keys, values, segments, writes, fillers

    @property
    def chance(self) -> float:
        return 1 / self.values

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.fillers + self.keys + self.values}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        least = self.keys + 2 * self.segments * self.writes
        if length < least:
            raise SourceError(f"rewriting in {self.segments} segments takes at least {least} steps, not {length}")
        inputs = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        key = (inputs >= self.fillers) & (inputs < self.fillers + self.keys)
        asked = key & (torch.arange(length) >= length - self.keys)
        # the newest value of each key: of its places before the questions, the last
        written = torch.where(key & ~asked, torch.arange(length), -1)[:, : length - 1]
        number = (inputs[:, : length - 1] - self.fillers).clamp(0, self.keys - 1)
        last = torch.full((size, self.keys), -1).scatter_reduce(1, number, written, "amax")
        newest = inputs.gather(1, (last + 1).clamp(min=0))
        questions = inputs[:, -self.keys :] - self.fillers
        targets, scored = torch.zeros_like(inputs), asked
        known = last.gather(1, questions) >= 0
        targets[:, -self.keys :] = newest.gather(1, questions).masked_fill(~known, 0)
        scored[:, -self.keys :] &= known
        return Batch(inputs, targets, scored, begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        # a dictionary, filled whenever a value follows a key
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            known, before = {}, 0
            for step, token in enumerate(row):
                if token >= self.fillers + self.keys:
                    known[before] = token
                answer[step] = known.get(token, 0)
                before = token
        return certain(answers, self.fillers + self.keys + self.values)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        content = random.integers(0, self.fillers, (size, length))
        part = (length - self.keys) // self.segments
        for first in range(0, part * self.segments, part):
            places = first + 2 * random.random((size, part // 2)).argsort(1)[:, : self.writes]
            keys = random.random((size, self.keys)).argsort(1)[:, : self.writes]
            values = random.integers(0, self.values, (size, self.writes))
            np.put_along_axis(content, places, self.fillers + keys, 1)
            np.put_along_axis(content, places + 1, self.fillers + self.keys + values, 1)
        content[:, -self.keys :] = self.fillers + random.random((size, self.keys)).argsort(1)
        return content
