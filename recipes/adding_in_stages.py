"""Adding in rows that double as soon as they are learned: what a long row does not teach, short ones do.

python recipes/adding_in_stages.py [--steps 3000] [--seeds 3]
"""

import argparse
import statistics

import torch

from recurra.models import MODELS, count, solve_width
from recurra.models.base import Model
from recurra.tasks import Task, make
from recurra.train.optimisers import adamw, clip, set_learning_rate

BATCH, PARAMETERS = 32, 4_850
SHORTEST = 25
# of the shortest rows; rows k times as long have k^-fall of it. What a dense matrix carries may explode on the way, and
# the sooner the longer the way; what a unitary one carries may not
RATE = 3e-3
FALLS = {"elman": 1.0, "irnn": 1.0, "urnn": 0.5}
# rows are learned when the mean loss of the last RECENT batches is below LEARNED
RECENT, LEARNED = 100, 0.03
# batches of held-out rows
HELD_OUT = 10
# a mixer, and where rows stop growing
ARMS = {f"{mixer}, rows of {longest}": (mixer, longest) for mixer in FALLS for longest in (200, 400)}


def fit(model: Model, task: Task, steps: int, longest: int, fall: float, seed: int) -> list[int]:
    """Train, and return the updates after which rows became longer."""
    optimiser, length, recent, doubled = adamw(model, 0.1, (0.9, 0.95)), SHORTEST, [], []
    for step in range(steps):
        # it rises, stays, and falls to zero in the last third
        rate = RATE * min(1, (step + 1) / 50, 3 * (steps - step) / steps)
        set_learning_rate(optimiser, rate * (SHORTEST / length) ** fall)
        batch = task.batch("train", step, BATCH, length, seed)
        loss = task.loss(model(batch.inputs)[0], batch)
        optimiser.zero_grad()
        loss.backward()
        clip(list(model.parameters()), 1.0)
        optimiser.step()
        recent = [*recent[1 - RECENT :], float(loss.detach())]
        if length < longest and len(recent) == RECENT and statistics.fmean(recent) < LEARNED:
            length, recent = 2 * length, []
            doubled.append(step + 1)
    return doubled


@torch.no_grad()
def error(model: Model, task: Task, length: int) -> float:
    """The mean squared error on held-out rows of a length."""
    batches = [task.batch("test", index, BATCH, length, 0) for index in range(HELD_OUT)]
    return statistics.fmean(float(task.loss(model(batch.inputs)[0], batch)) for batch in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 3000), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = make({"task": "adding"})
    print("| | numbers trained | held-out squared error | seeds | came to rows of | updates before |")
    print("| --- " * 6 + "|")
    for arm, (mixer, longest) in ARMS.items():
        made = {"inputs": 2, "horizon": 1, "depth": 1, "pattern": mixer, "hidden": 0}
        arguments = solve_width("forecaster", made, PARAMETERS)
        errors, reached, before, size = [], [], [], 0
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = MODELS["forecaster"](**arguments)
            doubled = fit(model, task, options.steps, longest, FALLS[mixer], seed)
            errors.append(error(model, task, longest))
            reached.append(str(SHORTEST * 2 ** len(doubled)))
            before.append(f"{doubled[-1]:,}" if doubled else "0")
            size = count(model)
        deviation = statistics.stdev(errors) if len(errors) > 1 else 0.0
        mean, seeds = f"{statistics.fmean(errors):.4f} ± {deviation:.4f}", ", ".join(f"{x:.4f}" for x in errors)
        print(f"| {arm} | {size:,} | {mean} | {seeds} | {', '.join(reached)} | {', '.join(before)} |", flush=True)


if __name__ == "__main__":
    main()
