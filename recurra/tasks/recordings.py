"""Recordings: another network's outputs, and the rates of a few of its units. The rest of it nobody has seen."""

import math
from typing import Any

import numpy as np
import torch

from recurra.shapes import Float, Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, rows

INPUTS, OUTPUTS = 3, 2
PULSES, STRENGTH = 0.1, 2.0  # how often an input is 1 or -1, and its weights' size
BATCHES, ROWS, STEPS = 20, 64, 64  # what chance is measured over


class Recordings(Task):
    r"""Do what a random network of rates does with its inputs; some of its units were recorded on the way.

    .. math::
        r_t = (1 - a)\, r_{t-1} + a \tanh(U r_{t-1} + W x_t) \qquad y_t = C r_t \qquad a = 1 - e^{-1 / \tau}

    with :math:`U_{ij} \sim N(0, g^2 / n)`, pulses of -1 and 1 for x, and C such that outputs have a size of about 1.
    The teacher of Salatiello and Giese 2020, https://doi.org/10.1007/978-3-030-61609-0_70, in small, as what the rule
    `target_dynamics` learns from. Rows begin in silence, with a pulse on every input. Targets are the outputs, then the
    rates of the first `recorded` units; loss and score are the squared error of the outputs alone. Chance is to say 0
    always: the outputs' mean square over twenty batches of held-out rows of 64 steps.

    Args:
        units: of the teacher (n).
        recorded: units that were recorded.
        gain: g; above 1 the teacher moves by itself.
        tau: time constant in steps.
        teacher: the seed that the teacher is drawn from.
    """

    head = "forecaster"
    measure = "squared error"
    lower_is_better = True

    def __init__(
        self, *, units: int = 100, recorded: int = 10, gain: float = 1.2, tau: float = 5.0, teacher: int = 0
    ) -> None:
        if not 1 <= recorded <= units:
            raise SourceError(f"recorded is {recorded}: it must be between 1 and the units, {units}")
        if not gain > 0 or not tau > 0:
            raise SourceError(f"gain is {gain} and tau {tau}: both must be greater than 0")
        if teacher < 0:
            raise SourceError(f"teacher is {teacher}: it must be at least 0")
        self.config = {
            "task": "recordings", "units": units, "recorded": recorded, "gain": gain, "tau": tau, "teacher": teacher,
        }  # fmt: skip
        random = np.random.default_rng(teacher)
        self.share = -math.expm1(-1 / tau)
        self.recurrent = torch.from_numpy(random.normal(0, gain * units**-0.5, (units, units)))
        self.input = torch.from_numpy(STRENGTH * (2 * random.random((units, INPUTS)) - 1))
        self.read = torch.from_numpy(random.normal(0, 2 * units**-0.5, (OUTPUTS, units)))

    @property
    def chance(self) -> float:
        batches = [self.batch("test", index, ROWS, STEPS, 0).targets for index in range(BATCHES)]
        return float(torch.stack(batches)[..., :OUTPUTS].square().mean())

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": INPUTS, "horizon": OUTPUTS, "quantiles": [0.5]}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        pulses = torch.from_numpy(rows(_draw, split, index, size, length, seed))
        rates = self.rates(pulses)
        targets = torch.cat([rates @ self.read.T, rates[..., : self.config["recorded"]]], -1)
        return Batch(pulses.float(), targets.float(), reset=begins(size, length) if carried else None)

    def rates(self, inputs: Tensor) -> Float[Tensor, "B T N"]:
        """The rates of all units of the teacher, also of those that were not recorded, in float64."""
        driven = (inputs.double() @ self.input.T).unbind(1)
        rate, rates = torch.zeros_like(driven[0]), []
        for drive in driven:
            rate = rate + self.share * (torch.tanh(rate @ self.recurrent.T + drive) - rate)
            rates.append(rate)
        return torch.stack(rates, 1)

    def recordings(self, batch: Batch) -> Float[Tensor, "B T S"]:
        """What the recorded units did."""
        return batch.targets[..., OUTPUTS:]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self._errors(outputs, batch).mean()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        errors = self._errors(outputs.detach(), batch)
        return float(errors.sum()), float(errors.numel())

    def solve(self, batch: Batch) -> Tensor:
        """The teacher with its inputs."""
        return (self.rates(batch.inputs) @ self.read.T).float()[..., None]

    def _errors(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs[..., 0].float() - batch.targets[..., :OUTPUTS]).square()


def _draw(random: np.random.Generator, size: int, length: int) -> np.ndarray:
    sign = 2 * random.integers(0, 2, (size, length, INPUTS)) - 1
    pulsed = random.random((size, length, INPUTS)) < PULSES
    pulsed[:, :1] = True
    return sign * pulsed
