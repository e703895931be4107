"""Losses and scores over tokens: what every task with one right answer a step shares."""

import numpy as np
import torch
import torch.nn.functional as F

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch, Task
from recurra.tasks.draws import begins, ends


class Choices(Task):
    """A task with one right token at every step that counts: the score is how often that is the likeliest one."""

    head = "language_model"
    measure = "accuracy"
    lower_is_better = False

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs, batch)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        logits, targets = counted(outputs, batch)
        return float((logits.argmax(-1) == targets).sum()), float(len(targets))


def counted(outputs: Tensor, batch: Batch) -> tuple[Tensor, Int[Tensor, " N"]]:
    """The outputs `(N, V)` and targets `(N,)` of the steps that count, in float32 or wider."""
    outputs = outputs.float() if outputs.dtype.itemsize < 4 else outputs
    if batch.scored is None:
        return outputs.flatten(0, 1), batch.targets.flatten()
    return outputs[batch.scored], batch.targets[batch.scored]


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    """The mean surprise in nats; zero where no step counts."""
    logits, targets = counted(outputs, batch)
    return F.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)


def certain(answers: Int[Tensor, "B T"], vocabulary: int) -> Tensor:
    """Outputs `(B, T, V)` of someone who is sure of `answers`."""
    return 30.0 * F.one_hot(answers, vocabulary).float()


def asked_at_the_end(content: np.ndarray, answers: list[int], carried: bool) -> Batch:
    """Rows of tokens `(B, T)` with an answer each at their last step, where alone it counts."""
    inputs = torch.from_numpy(content)
    targets = torch.zeros_like(inputs)
    targets[:, -1] = torch.tensor(answers)
    return Batch(inputs, targets, ends(*inputs.shape), begins(*inputs.shape) if carried else None)
