"""How long one step takes when a model streams: one sequence, one thread, nothing else at work."""

import statistics
import time
from typing import Any

import torch

WARM, STEPS = 20, 200


def step_microseconds(model: Any) -> float | None:
    """The median time of a single step at batch 1, with the state handed from step to step; None: it cannot stream."""
    if not model.streams:
        return None
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
    """An input of one step for one sequence: features or a frame of 0, or token 0, or the one that begins an answer."""
    features = model.config.get("inputs")
    if features is None:
        return torch.full((1, 1), model.config.get("go", 0))
    return torch.zeros(1, 1, *(features if isinstance(features, list) else (features,)))
