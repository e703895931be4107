"""Digits read pixel by pixel: what a picture shows is known only to someone who remembers most of it."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, generator, rows

# the one stroke of each digit, through points: across and down, in tenths of the picture, a for ten
PENS = (
    "50 10 02 08 1a 5a 9a a8 a2 90 50", "32 50 5a", "12 30 70 92 94 1a 9a", "11 50 82 83 54 86 88 5a 19",
    "7a 70 07 a7", "90 20 14 63 95 97 6a 1a", "80 31 05 08 3a 7a 98 86 55 16", "00 a0 4a",
    "50 12 13 85 88 5a 18 15 83 82 50", "94 55 13 12 40 70 92 94 8a",
)  # fmt: skip
FINE = 2**16  # a hand's numbers are whole, so that their hash is exact
WIDTH = 0.06  # of a stroke
# how far from an upright, centred digit a hand may be: turn and shear, sizes and shifts across and down
LOW, HIGH = (np.array(x) for x in ((-0.2, -0.2, 0.55, 0.6, -0.08, -0.08), (0.2, 0.2, 0.75, 0.8, 0.08, 0.08)))


class SequentialDigits(Task):
    r"""Read a drawn digit one pixel at a time, line by line, and say at the end which it was.

    A digit is a stroke between points, drawn by a hand that turns, shears, stretches and shifts it; a pixel at p is

    .. math::  e^{-\lVert p - s \rVert^2 / 2 w^2} + \text{noise}

    with s the stroke's nearest point. In place of the handwritten digits of LeCun et al. 1998,
    https://doi.org/10.1109/5.726791, read in a sequence as by Le, Jaitly and Hinton 2015,
    https://arxiv.org/abs/1504.00941. A row must have as many steps as some square has pixels. Chance is exactly 1/10;
    which digits are in the test a hash of digit and hand decides.

    Args:
        noise: the standard deviation of every pixel.
    """

    head = "classifier"
    measure = "accuracy"
    lower_is_better = False

    def __init__(self, *, noise: float = 0.1) -> None:
        if noise < 0:
            raise SourceError(f"noise is {noise}: it must be at least 0")
        self.config = {"task": "sequential_digits", "noise": noise}
        self.noise = noise

    @property
    def chance(self) -> float:
        return 1 / len(PENS)

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": 1, "classes": len(PENS)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        side = math.isqrt(length)
        if side < 5 or side**2 != length:
            raise SourceError(f"a picture cannot have {length} pixels: give the steps of a square, 25 at least")
        drawn = rows(_draw, split, index, size, length, seed)
        pixels = np.stack([_picture(digit, hand, side) for digit, *hand in drawn.tolist()])
        noise = generator(split, index, size, length, seed).normal(0, self.noise, pixels.shape)
        inputs = torch.from_numpy(pixels + noise).float()[..., None]
        return Batch(inputs, torch.from_numpy(drawn[:, 0]), reset=begins(size, length) if carried else None)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.targets)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        right = outputs.argmax(-1) == batch.targets
        return float(right.sum()), float(len(right))

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("a badly drawn digit may be any of two")


def _draw(random: np.random.Generator, size: int, length: int) -> np.ndarray:
    """A digit and the six numbers of a hand, each of FINE: `(B, 7)`."""
    return random.integers(0, [len(PENS), *[FINE] * len(LOW)], (size, 1 + len(LOW)))


def _picture(digit: int, hand: list[int], side: int) -> np.ndarray:
    """The pixels of a digit as that hand draws it, line by line: `(side * side,)`."""
    turn, shear, across, down, right, low = LOW + (HIGH - LOW) * np.array(hand) / FINE
    points = np.array([[int(x, 16), int(y, 16)] for x, y in PENS[digit].split()]) / 10 - 0.5
    form = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    form = form @ np.array([[across, shear], [0, down]])
    points = points @ form.T + [0.5 + right, 0.5 + low]
    centres = (np.arange(side) + 0.5) / side
    pixels = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 1, 2)
    # the nearest point of each piece of the stroke
    start, piece = points[:-1], np.diff(points, axis=0)
    share = ((pixels - start) * piece).sum(-1) / np.square(piece).sum(-1)
    away = pixels - start - share.clip(0, 1)[..., None] * piece
    return np.exp(-np.square(away).sum(-1).min(1) / (2 * WIDTH**2))
