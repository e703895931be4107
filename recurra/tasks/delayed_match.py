"""Delayed match to sample: is this what was there so many steps ago?"""

import numpy as np
import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.window import Window


class DelayedMatch(Window):
    r"""Say at every step whether its bit is the one n - 1 steps before, for n = 2 up to `longest`.

    .. math::  y^{(n)}_t = [x_{t-n+1} = x_t]

    The N-DMS of Khajehabdollahi et al. 2024, https://openreview.net/forum?id=xwKt6bUkXj, with one head for each n. Bits
    are fair, so chance is exactly 1/2. Unlike the paper, which reads the last step of rows of random length, every
    step counts at which the longest window is full.

    Args:
        longest: the largest n; a model has two logits for each.
    """

    def __init__(self, *, longest: int = 8) -> None:
        super().__init__("delayed_match", longest)

    def draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        return random.integers(0, 2, (size, length))

    def answer(self, bits: Int[Tensor, "B T"], window: int) -> Int[Tensor, "B T"]:
        before = torch.nn.functional.pad(bits, (window - 1, 0))[:, : bits.shape[1]]
        return (bits == before).long()
