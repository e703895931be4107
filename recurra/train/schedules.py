"""The learning rate as a function of the step alone, so that there is nothing to save and nothing to resume."""

import math


def warmup_cosine(step: int, steps: int, warmup: int, highest: float, lowest: float) -> float:
    """The learning rate of update `step` (0 to steps - 1): a linear rise, then half a cosine down to `lowest`.

    The first update is at highest / warmup, update `warmup` at `highest`, the last at `lowest`.
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    fraction = (step - warmup) / max(1, steps - 1 - warmup)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
