"""What both copying tasks share: which of them can be had, the steps that count, and a solver that is a queue."""

import torch

from recurra.shapes import Bool, Int, Tensor
from recurra.tasks.base import SourceError


def check(symbols: int, items: int) -> None:
    """Refuse numbers that make no task.

    Raises:
        SourceError: there is nothing to tell apart, or nothing to remember.
    """
    if symbols < 2 or items < 1:
        raise SourceError(f"symbols is {symbols} and items is {items}: they must be at least 2 and 1")


def answered(items: int, size: int, length: int) -> Bool[Tensor, "B T"]:
    """The steps that count: the last ones, one for each item, which a marker comes before.

    Raises:
        SourceError: rows are too short for the items, the marker and the items again.
    """
    if length < 2 * items + 1:
        raise SourceError(f"copying {items} items takes at least {2 * items + 1} steps, not {length}")
    return (torch.arange(length) >= length - items).expand(size, length)


def solve(inputs: Int[Tensor, "B T"], marker: int) -> Int[Tensor, "B T"]:
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
