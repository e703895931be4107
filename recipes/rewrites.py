"""Keys written and written again over eight segments, asked for at the end: memories of segments against a window.

python recipes/rewrites.py [--steps 400] [--seeds 3] [--first 0]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from recurra.models import LanguageModel, count
from recurra.models.base import Model
from recurra.shapes import Tensor
from recurra.state import nbytes
from recurra.tasks import Rewrites
from recurra.tasks.choices import cross_entropy
from recurra.train.optimisers import adamw, clip, set_learning_rate
from recurra.train.schedules import warmup_cosine

# of a segment, and of the window; segments of training, and steps until there is one more
SEGMENT, MOST, RAMP = 20, 8, 25
KEYS, VALUES, WRITES = 4, 8, 2
SEGMENTS, HELD_OUT = (1, 2, 4, 8, 16), 256
WIDTH, BATCH, RATE = 32, 64, 4e-3
ARMS: dict[str, dict[str, Any]] = {
    "sliding_window": {"window": SEGMENT},
    "infini_attention": {"segment": SEGMENT, "delta": True},
    "rmt": {"segment": SEGMENT, "tokens": 8},
    "armt": {"segment": SEGMENT, "tokens": 4},
}


def model_of(mixer: str, keywords: dict[str, Any], vocabulary: int) -> LanguageModel:
    """One block that sees two steps at a time and remembers nothing else, and one of the mixer."""
    pattern, mixers = f"channel_mix,{mixer}", {mixer: keywords}
    return LanguageModel(vocabulary=vocabulary, width=WIDTH, depth=2, pattern=pattern, mixers=mixers, hidden=0)


def learn(model: Model, steps: int, rate: float, loss_at: Callable[[int], Tensor]) -> None:
    """Lower the loss of every step, at a rate that falls to a twentieth."""
    optimiser = adamw(model, 0.01, (0.9, 0.98))
    for step in range(steps):
        set_learning_rate(optimiser, warmup_cosine(step, steps, 20, rate, rate / 20))
        optimiser.zero_grad()
        loss_at(step).backward()
        clip(list(model.parameters()), 1.0)
        optimiser.step()


def task_of(segments: int) -> Rewrites:
    return Rewrites(keys=KEYS, values=VALUES, segments=segments, writes=WRITES)


def run(mixer: str, steps: int, seed: int) -> list[float]:
    """Held-out accuracy after each number of segments."""
    torch.manual_seed(seed)
    draw, model = random.Random(seed), model_of(mixer, ARMS[mixer], 1 + KEYS + VALUES)

    def loss_at(step: int) -> Tensor:
        segments = draw.randint(1, min(MOST, 1 + step // RAMP))
        batch = task_of(segments).batch("train", step, BATCH, SEGMENT * segments, seed)
        return cross_entropy(model(batch.inputs)[0], batch)

    learn(model, steps, RATE, loss_at)
    scores = []
    for segments in SEGMENTS:
        task = task_of(segments)
        batch = task.batch("test", 0, HELD_OUT, SEGMENT * segments, 0)
        with torch.no_grad():
            right, asked = task.score(model(batch.inputs)[0], batch)
        scores.append(right / asked)
    return scores


def cells(scores: list[list[float]]) -> str:
    """Mean and standard deviation of each column."""
    shown = zip(*scores, strict=True)
    return " | ".join(f"{statistics.fmean(c):.3f} ± {statistics.stdev(c) if len(c) > 1 else 0:.3f}" for c in shown)


def arguments(description: str, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", steps), ("seeds", 3), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def table(
    description: str,
    steps: int,
    heads: list[str],
    arms: Iterable[str],
    run: Callable[[str, int, int], list[float]],
    model_of: Callable[[str], LanguageModel],
) -> None:
    """Run every arm with every seed that the command line asks for, and print a row as soon as it is there."""
    options = arguments(description, steps)
    torch.set_num_threads(1)
    print(f"| mixer | {' | '.join(heads)} | parameters | state bytes | seconds |\n" + "| --- " * (len(heads) + 4) + "|")
    for mixer in arms:
        began = time.process_time()
        scores = [run(mixer, options.steps, seed) for seed in range(options.first, options.first + options.seeds)]
        spent = (time.process_time() - began) / options.seeds
        model = model_of(mixer)
        sizes = f"{count(model):,} | {nbytes(model.initial_state(1)):,} | {spent:.0f}"
        print(f"| {mixer} | {cells(scores)} | {sizes} |", flush=True)


def main() -> None:
    heads = [f"{n} segments" if n > 1 else "1 segment" for n in SEGMENTS]
    table(__doc__ or "", 400, heads, ARMS, run, lambda mixer: model_of(mixer, ARMS[mixer], 1 + KEYS + VALUES))


if __name__ == "__main__":
    main()
