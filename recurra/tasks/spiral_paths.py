"""Spirals seen now and then, at no regular times: what was between, and what comes after?"""

import math
from typing import Any

import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, generator

SPAN = 6.0  # units of time in a row
WATCHED = 2 / 3  # of a row's steps; the rest is the future
TURNS = 1.5  # in a row


class SpiralPaths(Task):
    r"""Say where a point on a spiral is at every step, from the few steps at which it was seen.

    .. math::
        r(t) = a + b\, t \qquad x(t) = r(t) (\cos(\omega t + \phi), \pm \sin(\omega t + \phi))

    Half of the spirals turn left and half right; the time between two steps is drawn from 0.5 to 1.5 of its mean. Of
    the first two thirds of the steps a share is seen, with noise, of the last third nothing. A step is the two numbers
    (zero where nothing was seen) and two marks that say whether it was. After the spirals of Chen et al. 2018,
    https://arxiv.org/abs/1806.07366, with times as of Rubanova et al. 2019, https://arxiv.org/abs/1907.03907. Training
    lowers the nats of the true places under normal densities of the noise's width plus the nats of the latent density,
    a step; the measure is the squared error a number at the steps that were not seen, and chance is to say zero always.
    Paths of train and test are drawn apart.

    Args:
        seen: the share of the first steps that is seen; the first always is.
        noise: the standard deviation of what is seen.
    """

    head = "latent_ode"
    measure = "squared error"
    lower_is_better = True

    def __init__(self, *, seen: float = 0.3, noise: float = 0.05) -> None:
        if not 0 < seen <= 1 or noise <= 0:
            raise SourceError(f"seen is {seen} and noise is {noise}: a share above 0 and at most 1, and more than 0")
        self.config = {"task": "spiral_paths", "seen": seen, "noise": noise}
        self.seen, self.noise = seen, noise

    @property
    def chance(self) -> float:
        total, count = 0.0, 0.0
        for index in range(4):
            batch = self.batch("test", index, 256, 60, 0)
            one, some = self.score(torch.zeros(256, 60, 3), batch)
            total, count = total + one, count + some
        return total / count

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": 4}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 3:
            raise SourceError(f"a path with a past and a future takes at least 3 steps, not {length}")
        random = generator(split, index, size, length, seed)
        dt = torch.from_numpy(random.uniform(0.5, 1.5, (size, length)) * SPAN / length)
        times = dt.cumsum(1)
        start, growth, phase = (
            torch.from_numpy(random.uniform(low, high, (size, 1)))
            for low, high in ((0.2, 0.5), (0.05, 0.15), (0, 2 * math.pi))
        )
        turn = torch.from_numpy(random.choice([-1.0, 1.0], (size, 1)))
        radius, angle = start + growth * times, 2 * math.pi * TURNS / SPAN * times + phase
        places = torch.stack([radius * angle.cos(), turn * radius * angle.sin()], -1)
        marks = torch.from_numpy(random.random((size, length)) < self.seen)
        marks[:, int(WATCHED * length) :] = False
        marks[:, 0] = True
        noisy = places + torch.from_numpy(random.normal(0, self.noise, places.shape))
        told = marks[..., None].expand_as(places)
        inputs = torch.cat([noisy * told, told.double()], -1).float()
        reset = begins(size, length) if carried else None
        return Batch(inputs, places.float(), ~marks, reset, None, dt.float())

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Nats a step, but for a constant."""
        errors = (outputs[..., :2] - batch.targets).square().sum(-1)
        return (errors / (2 * self.noise**2) + outputs[..., 2]).mean()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        errors = (outputs[..., :2].float() - batch.targets)[batch.scored].square()
        return float(errors.sum()), float(errors.numel())

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("nobody knows where a path that was seen in noise has been")
