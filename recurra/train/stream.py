"""Streams without end: every step is met once, nothing is ever reset, and what is said of it is scored before it is
learned from.

There is no held-out data in a life. What a model says of a step that it has not yet learned from is an honest test of
everything that it has learned so far (prequential evaluation, Dawid 1984, https://doi.org/10.2307/2981683), and its
mean over the last while is the score. What such streams ask beyond that, a bounded state and memory that stays flat, is
measured on the way (Casoni et al. 2024, *Pitfalls in processing infinite-length sequences with popular approaches for
sequential data*).
"""

import math
import resource
import sys
from typing import Any

from recurra.shapes import State, Tensor
from recurra.state import leaves
from recurra.tasks import Batch, Piped, Task
from recurra.train.errors import RunError

FOR_EVER = 2**53  # updates: no run comes to its end


class Stream(Task):
    """A task as one stream: its training rows end to end, once, without a reset, scored as they are learned.

    Rows of made tasks never end: each sequence follows the last with no mark between them but its own content. Text and
    series end where their training part does, each row of the batch having read its own piece of it. A pipe ends where
    it is closed. The score counts what a rule asks the loss of, before the update; it is the mean since the last
    `take`.

    Args:
        task: what to make a stream of.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.config, self.head = task, task.config, task.head
        self.total, self.count = 0.0, 0.0
        self.pipe = task if isinstance(task, Piped) else None

    def __getattr__(self, name: str) -> Any:
        """What only some tasks have, such as `decode`."""
        if name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)

    @property
    def measure(self) -> str:  # type: ignore[override]
        return f"{self.task.measure} before learning"

    @property
    def lower_is_better(self) -> bool:  # type: ignore[override]
        return self.task.lower_is_better

    @property
    def chance(self) -> float:
        return self.task.chance

    def model_arguments(self) -> dict[str, Any]:
        return self.task.model_arguments()

    def batches(self, size: int, length: int) -> int:
        """How many there are until any step would be met again.

        Raises:
            RunError: not even one.
        """
        streams = getattr(self.task, "streams", None)
        if streams is None:
            return FOR_EVER
        steps = len(streams["train"][0])
        if steps // size < length:
            raise RunError(f"the source has {steps} steps: too few to be met once by {size} rows of {length}")
        return steps // size // length

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        batch = self.task.batch(split, index, size, length, seed, carried)
        return batch._replace(reset=None) if carried else batch

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        total, count = self.task.score(outputs.detach(), batch)
        self.total, self.count = self.total + total, self.count + count
        return self.task.loss(outputs, batch)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        return self.task.score(outputs, batch)

    def solve(self, batch: Batch) -> Tensor:
        return self.task.solve(batch)

    def take(self) -> float:
        """The score since the last call.

        Raises:
            RunError: it is not a finite number.
        """
        score = self.total / self.count if self.count else math.nan
        if not math.isfinite(score):
            raise RunError(f"the {self.measure} is {score}: nothing was scored, or the model is not finite")
        self.total = self.count = 0.0
        return score


def health(kept: State | None) -> dict[str, float]:
    """The largest number in what is carried, flags and counters left out, and the most bytes that the process held."""
    sized = (x.detach() for x in leaves(kept or ()) if x.numel() and (x.is_floating_point() or x.is_complex()))
    largest = max((float(x.abs().max()) for x in sized), default=0.0)
    # in kilobytes, except where the system counts bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return {"state_max": largest, "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
