"""Adding: two numbers among many, far apart. The oldest test of whether gradients reach back through time."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, ends, rows

FINENESS = 2**24  # values are whole multiples of 1 / FINENESS: exact in float32, and their hash is exact


class Adding(Task):
    r"""Add the two marked numbers of a long row, and say the sum at its end.

    .. math::  x_t = (u_t, m_t), \quad u_t \sim U[0, 1), \quad y_T = \textstyle\sum_t m_t u_t

    with one mark in each half of the row. Hochreiter and Schmidhuber 1997,
    https://doi.org/10.1162/neco.1997.9.8.1735; in this form Le, Jaitly and Hinton 2015,
    https://arxiv.org/abs/1504.00941. Only the last step counts. Chance is to say 1 always, which errs by the sum's
    variance: exactly 2/12.
    """

    head = "forecaster"
    measure = "squared error"
    lower_is_better = True

    def __init__(self) -> None:
        self.config = {"task": "adding"}

    @property
    def chance(self) -> float:
        return 1 / 6

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": 2, "horizon": 1, "quantiles": [0.5]}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 2:
            raise SourceError(f"adding two numbers takes at least 2 steps, not {length}")
        content = torch.from_numpy(rows(_draw, split, index, size, length, seed))
        inputs = torch.stack([content[..., 0].float() / FINENESS, content[..., 1].float()], -1)
        total = (content[..., 0] * content[..., 1]).sum(1).double() / FINENESS
        targets = total.float()[:, None, None].expand(size, length, 1)
        return Batch(inputs, targets, ends(size, length), begins(size, length) if carried else None)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self._errors(outputs, batch).mean()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        errors = self._errors(outputs.detach(), batch)
        return float(errors.sum()), float(len(errors))

    def solve(self, batch: Batch) -> Tensor:
        sums = []
        for row in batch.inputs.tolist():
            sums.append(sum(value for value, mark in row if mark))
        answers = torch.tensor(sums, dtype=torch.float32)
        return answers[:, None, None, None].expand(*batch.inputs.shape[:2], 1, 1)

    def _errors(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The squared error of each row, at its last step, in float32."""
        return (outputs[:, -1, 0, 0].float() - batch.targets[:, -1, 0]).square()


def _draw(random: np.random.Generator, size: int, length: int) -> np.ndarray:
    """Whole numbers for the values, and the marks: `(B, T, 2)`."""
    content = np.zeros((size, length, 2), dtype=np.int64)
    content[..., 0] = random.integers(0, FINENESS, (size, length))
    row, half = np.arange(size), length // 2
    content[row, random.integers(0, half, size), 1] = 1
    content[row, random.integers(half, length, size), 1] = 1
    return content
