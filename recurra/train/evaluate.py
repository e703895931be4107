"""The score on held-out data: always the same data, whatever the seed, so that scores of runs can be compared."""

import math
from typing import Any

import torch

from recurra.tasks import Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.forward import carried, forward, moved

# the held-out data is not drawn by the run's own seed
SEED = 0


@torch.no_grad()
def evaluate(model: Any, task: Task, config: Config) -> float:
    """The task's measure over the first `evaluation_tokens` of the test split, with the state carried as in training.

    Raises:
        RunError: it is not a finite number.
    """
    training = model.training
    model.eval()
    total, count, state = 0.0, 0.0, None
    length = config.evaluation_length or config.length
    for index in range(max(1, config.evaluation_tokens // (config.batch * length))):
        batch = task.batch("test", index, config.batch, length, SEED, config.tbptt)
        batch = moved(batch, config.device)
        outputs, after = forward(model, batch, state, config)
        state = carried(after) if config.tbptt else None
        one, some = task.score(outputs, batch)
        total, count = total + one, count + some
    model.train(training)
    score = total / count if count else math.nan
    if not math.isfinite(score):
        raise RunError(f"the {task.measure} on held-out data is {score}: the model or the data is not finite")
    return score
