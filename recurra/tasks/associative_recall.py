"""Associative recall with many queries: how many pairs fit into a state, and can it be written without smearing?"""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class AssociativeRecall(Choices):
    r"""Read pairs of a key and a value; then, whenever a key comes again, say its value.

        key value key value ... 0 key 0 0 0 key 0 ...
                                  value     value

    MQAR: Arora et al. 2023, *Zoology*, https://arxiv.org/abs/2312.04927. Keys are distinct and so are values. Each
    key is asked once, after the pairs, at an even distance 2g from their end with

    .. math::  p(g) \propto g^{power - 1}

    drawn without replacement, so most questions come soon and some late; all other steps are 0. Only questions
    count. Chance is exactly 1 / pairs: one of the row's values at random. Tokens: 0 is silence, 1 to V/2 - 1 are
    keys, V/2 to V - 1 are values. A longer row is a longer wait.

    Args:
        pairs: how many must be remembered.
        vocabulary: how many tokens there are (V), even.
        power: how fast questions grow rarer; Zoology's is 0.01.
        graded: rows for training have any number of pairs from 1 to `pairs`, each as often, and silence before them:
            the easy ones teach what a question is. Held-out rows always have them all.
    """

    def __init__(self, *, pairs: int = 8, vocabulary: int = 256, power: float = 0.01, graded: bool = False) -> None:
        if pairs < 1 or vocabulary % 2 or vocabulary // 2 <= pairs:
            raise SourceError(f"{pairs} pairs need an even vocabulary of more than {2 * pairs}, not {vocabulary}")
        self.config = {
            "task": "associative_recall", "pairs": pairs, "vocabulary": vocabulary, "power": power, "graded": graded,
        }  # fmt: skip
        self.pairs, self.vocabulary, self.power, self.graded = pairs, vocabulary, power, graded

    @property
    def chance(self) -> float:
        return 1 / self.pairs

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 4 * self.pairs:
            raise SourceError(f"recalling {self.pairs} pairs takes at least {4 * self.pairs} steps, not {length}")
        draw = self._draw_graded if self.graded and split == "train" else self._draw
        inputs = torch.from_numpy(rows(draw, split, index, size, length, seed))
        keys, values = inputs[:, : 2 * self.pairs : 2], inputs[:, 1 : 2 * self.pairs : 2]
        value_of = torch.zeros(size, self.vocabulary, dtype=torch.int64).scatter(1, keys, values)
        scored = (inputs > 0) & (torch.arange(length) >= 2 * self.pairs)
        targets = value_of.gather(1, inputs).masked_fill(~scored, 0)
        return Batch(inputs, targets, scored, begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        # a dictionary, filled whenever a value follows a key
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            known, before = {}, 0
            for step, token in enumerate(row):
                if token >= self.vocabulary // 2:
                    known[before] = token
                answer[step] = known.get(token, 0)
                before = token
        return certain(answers, self.vocabulary)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        half, pairs = self.vocabulary // 2, self.pairs
        content = np.zeros((size, length), dtype=np.int64)
        keys = 1 + random.random((size, half - 1)).argsort(axis=1)[:, :pairs]
        content[:, : 2 * pairs : 2] = keys
        content[:, 1 : 2 * pairs : 2] = half + random.random((size, half)).argsort(axis=1)[:, :pairs]
        # adding Gumbel noise to log p and taking the largest draws without replacement
        slots = (length - 2 * pairs) // 2
        likely = (self.power - 1) * np.log(np.arange(1, slots + 1)) + random.gumbel(size=(size, slots))
        asked = 2 * pairs + 2 * (-likely).argsort(axis=1)[:, :pairs]
        np.put_along_axis(content, asked, keys, axis=1)
        return content

    def _draw_graded(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Rows of which the first pairs, and what asks for them, may be silent."""
        content = self._draw(random, size, length)
        silent = np.arange(self.pairs) < random.integers(0, self.pairs, (size, 1))
        unasked = np.where(silent, content[:, : 2 * self.pairs : 2], -1)
        content[:, : 2 * self.pairs][np.repeat(silent, 2, axis=1)] = 0
        content[(content[:, :, None] == unasked[:, None]).any(-1)] = 0
        return content
