"""Losses and scores over tokens: what every task with one right answer a step shares."""

import torch.nn.functional as F

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch


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


def accuracy(outputs: Tensor, batch: Batch) -> tuple[float, float]:
    """How many steps have the target as their likeliest token, of how many."""
    logits, targets = counted(outputs, batch)
    return float((logits.argmax(-1) == targets).sum()), float(len(targets))


def certain(answers: Int[Tensor, "B T"], vocabulary: int) -> Tensor:
    """Outputs `(B, T, V)` of someone who is sure of `answers`."""
    return 30.0 * F.one_hot(answers, vocabulary).float()
