"""What a task is to everything that trains, evaluates or draws: batches by number, a loss, a score, its chance level.

Batch number i is a function of (split, i, size, length, seed) and of nothing else. So training resumes to the same
numbers with no iterator to save, and every process of a comparison sees the same data.
"""

import abc
from typing import Any, ClassVar, NamedTuple

from recurra.shapes import Bool, Float, Tensor


class SourceError(ValueError):
    """The data or the keywords given for a task cannot be used; the message is one sentence for the user."""


class Batch(NamedTuple):
    """Rows of sequences, what should come out, and where that counts."""

    inputs: Tensor  # (B, T) int64 tokens, or (B, T, F) float, or (B, T, F, height, width) float
    targets: Tensor  # (B, T) int64, or (B, T, O) float, or (B,) int64 for one class a row, or (B, U) int64 of labels
    scored: Bool[Tensor, "B T"] | None = None  # None: every step counts
    reset: Bool[Tensor, "B T"] | None = None  # where sequences begin inside a row
    valid: Bool[Tensor, "B T"] | None = None  # where steps happened
    dt: Float[Tensor, "B T"] | None = None  # the time since the step before, for models that have time


class Task(abc.ABC):
    """Something to learn.

    `head` names the model that fits (a row of `recurra.models.MODELS`) and `model_arguments` what it must be built
    with. `measure` names the score, `lower_is_better` its direction, `chance` what guessing gets.
    """

    head: str
    measure: ClassVar[str]
    lower_is_better: ClassVar[bool]
    config: dict[str, Any]  # the keywords that make this task again, JSON-able

    @property
    @abc.abstractmethod
    def chance(self) -> float:
        """The score of a guess that looks at nothing."""

    @abc.abstractmethod
    def model_arguments(self) -> dict[str, Any]:
        """The keywords that a model for this task must have: the vocabulary, the inputs, the quantiles."""

    @abc.abstractmethod
    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        """Batch number `index` of `split` ("train" or "test"): `size` rows of `length` steps.

        With `carried`, row b of batch i continues row b of batch i - 1 wherever `reset` does not say otherwise.
        """

    @abc.abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What training lowers: a scalar."""

    @abc.abstractmethod
    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        """The measure over a batch as (total, count): scores of batches add, their ratio is the score."""

    @abc.abstractmethod
    def solve(self, batch: Batch) -> Tensor:
        """Outputs of an independent solver that knows the rule: its score is perfect.

        Raises:
            NotImplementedError: nobody knows the rule (text, series).
        """
