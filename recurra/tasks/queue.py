"""What both copying tasks are: symbols to remember, a marker, and as many steps to say them in. A queue solves them."""

from typing import Any

import torch

from recurra.shapes import Bool, Int, Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain


class Queue(Choices):
    """Tokens: 0 is the blank, 1 to `symbols` the symbols, `symbols` + 1 the marker.

    Raises:
        SourceError: there is nothing to tell apart, or nothing to remember.
    """

    def __init__(self, name: str, symbols: int, items: int) -> None:
        if symbols < 2 or items < 1:
            raise SourceError(f"symbols is {symbols} and items is {items}: they must be at least 2 and 1")
        self.config = {"task": name, "symbols": symbols, "items": items}
        self.symbols, self.items, self.marker = symbols, items, symbols + 1

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.symbols + 2}

    def answered(self, size: int, length: int) -> Bool[Tensor, "B T"]:
        """The steps that count: the last ones, one for each item, which a marker comes before.

        Raises:
            SourceError: rows are too short for the items, the marker and the items again.
        """
        least = 2 * self.items + 1
        if length < least:
            raise SourceError(f"copying {self.items} items takes at least {least} steps, not {length}")
        return (torch.arange(length) >= length - self.items).expand(size, length)

    def solve(self, batch: Batch) -> Tensor:
        return certain(_said(batch.inputs, self.marker), self.symbols + 2)


def _said(inputs: Int[Tensor, "B T"], marker: int) -> Int[Tensor, "B T"]:
    """Answers by a queue, which every symbol goes into before the marker and comes out of after it; 0 is a blank."""
    answers = torch.zeros_like(inputs)
    for row, answer in zip(inputs.tolist(), answers, strict=True):
        queue, marked = [], False
        for step, token in enumerate(row):
            if marked and queue:
                answer[step] = queue.pop(0)
            elif token == marker:
                marked = True
            elif token:
                queue.append(token)
    return answers
