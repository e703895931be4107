"""The flip-flop: a few bits that are set now and then, and must be known at any time."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, rows


class FlipFlop(Task):
    r"""Say at every step which way each of several channels was pushed last.

    .. math::  y_t = x_t \text{ where } x_t \ne 0, \text{ else } y_{t-1}

    for each channel, with x of -1, 0 and 1. Sussillo and Barak 2013, https://doi.org/10.1162/NECO_a_00409. Every
    channel is pushed at the first step, so there is always an answer, and then with probability `pulses`. The score is
    how often a channel's sign is right; chance is exactly 1/2. The loss is the squared error.

    Args:
        bits: channels.
        pulses: how often a channel is pushed, in (0, 1).
    """

    head = "forecaster"
    measure = "accuracy"
    lower_is_better = False

    def __init__(self, *, bits: int = 3, pulses: float = 0.1) -> None:
        if bits < 1 or not 0 < pulses < 1:
            raise SourceError(f"bits is {bits} and pulses {pulses}: bits is at least 1, pulses between 0 and 1")
        self.config = {"task": "flip_flop", "bits": bits, "pulses": pulses}
        self.bits, self.pulses = bits, pulses

    @property
    def chance(self) -> float:
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": self.bits, "horizon": self.bits, "quantiles": [0.5]}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        pushes = rows(self._draw, split, index, size, length, seed)
        # the step of the last push of each channel
        steps = np.where(pushes != 0, np.arange(length)[:, None], 0)
        held = np.take_along_axis(pushes, np.maximum.accumulate(steps, 1), 1)
        inputs, targets = (torch.from_numpy(x).float() for x in (pushes, held))
        return Batch(inputs, targets, reset=begins(size, length) if carried else None)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs[..., 0].float() - batch.targets).square().mean()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        right = outputs[..., 0].sign() == batch.targets.sign()
        return float(right.sum()), float(right.numel())

    def solve(self, batch: Batch) -> Tensor:
        held, answers = torch.zeros_like(batch.inputs[:, 0]), []
        for push in batch.inputs.unbind(1):
            held = torch.where(push == 0, held, push)
            answers.append(held)
        return torch.stack(answers, 1)[..., None]

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        sign = 2 * random.integers(0, 2, (size, length, self.bits)) - 1
        pushed = random.random((size, length, self.bits)) < self.pulses
        pushed[:, :1] = True
        return sign * pushed
