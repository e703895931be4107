"""What tasks of numbers to come share: forecasts as quantiles, and the loss that makes them so."""

from collections.abc import Sequence
from typing import Any

import torch

from recurra.shapes import Float, Tensor
from recurra.tasks.base import Batch, SourceError, Task


class Quantiles(Task):
    r"""A task that asks at every step how the next values are distributed.

    Loss and score are the mean quantile loss, doubled so that for the median it is the absolute error (weighted
    quantile loss, Park et al. 2022, https://arxiv.org/abs/2111.06581):

    .. math::  2 \max(q\,e, (q - 1)\,e), \qquad e = y - \hat y_q

    Args:
        horizon: how many values are forecast at every step.
        quantiles: which, between 0 and 1 and rising.

    Raises:
        SourceError: an argument cannot be used.
    """

    head = "forecaster"
    measure = "scaled quantile loss"
    lower_is_better = True

    def __init__(self, horizon: int, quantiles: Sequence[float]) -> None:
        if horizon < 1:
            raise SourceError(f"horizon is {horizon}: it must be at least 1")
        if not quantiles or list(quantiles) != sorted({q for q in quantiles if 0 < q < 1}):
            raise SourceError(f"quantiles are {list(quantiles)}: they must lie between 0 and 1 and rise")
        self.horizon, self.quantiles = horizon, torch.tensor(list(quantiles))
        self._asked = {"inputs": 1, "horizon": horizon, "quantiles": list(quantiles)}

    def model_arguments(self) -> dict[str, Any]:
        return dict(self._asked)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        errors = self._errors(outputs, batch)
        return errors.sum() / max(len(errors), 1)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        errors = self._errors(outputs.detach(), batch)
        return float(errors.sum()), float(len(errors))

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("nobody knows the rule that a series follows")

    def _errors(self, outputs: Float[Tensor, "B T H Q"], batch: Batch) -> Float[Tensor, " N"]:
        """The quantile loss of every step that counts, in float32."""
        counts = ... if batch.scored is None else batch.scored
        quantiles = self.quantiles.to(outputs.device)
        error = batch.targets[counts][..., None] - outputs[counts].float()
        return 2 * torch.maximum(quantiles * error, (quantiles - 1) * error).mean((-2, -1)).flatten()
