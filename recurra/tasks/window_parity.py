"""Parity of a window: how long a memory is as a number that can be turned up."""

import numpy as np
import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.window import Window


class WindowParity(Window):
    r"""Say at every step whether the ones among the last n bits are odd or even, for n = 2 up to `longest`.

    .. math::  y^{(n)}_t = x_{t-n+1} \oplus \dots \oplus x_t

    The N-parity of Khajehabdollahi et al. 2024, https://openreview.net/forum?id=xwKt6bUkXj, with one head for each n.
    How often a bit is 1 is uniform over rows, from a tenth to nine tenths. Unlike the paper, which reads the last step
    of rows of random length, every step counts at which the longest window is full. Chance is a coin's; to say "even"
    always is a little better where n is even and small.

    Args:
        longest: the largest n; a model has two logits for each.
    """

    def __init__(self, *, longest: int = 8) -> None:
        super().__init__("window_parity", longest)

    def draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        return (random.random((size, length)) < random.uniform(0.1, 0.9, (size, 1))).astype(np.int64)

    def answer(self, bits: Int[Tensor, "B T"], window: int) -> Int[Tensor, "B T"]:
        total = bits.cumsum(1)
        before = torch.nn.functional.pad(total, (window, 0))[:, : bits.shape[1]]
        return (total - before) % 2
