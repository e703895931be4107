"""How long one step takes when a model streams: one sequence, one thread, nothing else at work."""

import statistics
import time
from typing import Any

import torch

WARM, STEPS = 20, 200


def step_microseconds(model: Any) -> float:
    """The median time of a single step at batch 1, with the state handed from step to step."""
    x = one_step(model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            _, state = model(x)
            times = []
            for _ in range(WARM + STEPS):
                started = time.perf_counter()
                _, state = model(x, state)
                times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 1e6 * statistics.median(times[WARM:])


def one_step(model: Any) -> torch.Tensor:
    """An input of one step for one sequence: token 0, or features of 0."""
    features = model.config.get("inputs")
    return torch.zeros(1, 1, dtype=torch.long) if features is None else torch.zeros(1, 1, features)
