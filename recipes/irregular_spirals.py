"""Spirals seen now and then, followed as they come: time as what the state flows through, or as one more feature.

python recipes/irregular_spirals.py [--steps 400] [--seeds 3]
"""

import argparse

import torch
from torch import Tensor

from recurra import Clock
from recurra.models import MODELS, count, solve_width
from recurra.tasks import Batch, make

BATCH, LENGTH, PARAMETERS = 32, 32, 10_500
# batches of held-out paths
HELD_OUT = 16
# keywords of each; without dt in its clock a mixer is given it as a feature
ARMS = {
    "gru": {},
    "gru, without time": {},
    "ode_rnn": {"method": "midpoint"},
    "neural_cde": {"method": "midpoint"},
}


class Follower:
    """A mixer in one block that says at every step, from the past alone, where the point is."""

    def __init__(self, arm: str) -> None:
        mixer = arm.split(",")[0]
        self.flows, self.feature = mixer != "gru", arm == "gru"
        made = {
            "inputs": 4 + self.feature, "horizon": 2, "depth": 1, "pattern": mixer, "mixers": {mixer: ARMS[arm]},
        }  # fmt: skip
        self.model = MODELS["forecaster"](**solve_width("forecaster", made, PARAMETERS))

    def say(self, batch: Batch) -> Tensor:
        """Places `(B, T, 2)`."""
        x = held(batch.inputs)
        if self.feature:
            # in units of a mean step
            x = torch.cat([x, (batch.dt / batch.dt.mean())[..., None]], -1)
        return self.model(x, None, Clock(dt=batch.dt) if self.flows else None)[0][..., 0]


def held(x: Tensor) -> Tensor:
    """Each step's last sighting in the place of zeros: a path that stands still between sightings."""
    at = torch.arange(x.shape[1]).expand(x.shape[:2])
    last = torch.where(x[..., 2] > 0, at, 0).cummax(1).values
    return torch.cat([x[..., :2].gather(1, last[..., None].expand(-1, -1, 2)), x[..., 2:]], -1)


def fit(learner: Follower, task: object, steps: int, seed: int) -> None:
    optimiser = torch.optim.Adam(learner.model.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        batch = task.batch("train", step, BATCH, LENGTH, seed)
        loss = (learner.say(batch) - batch.targets).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def errors(learner: Follower, task: object) -> tuple[float, float]:
    """The mean squared error a number at steps that were not seen: between sightings, and after the last of them."""
    between, after = [], []
    for index in range(HELD_OUT):
        batch = task.batch("test", index, BATCH, LENGTH, 0)
        wrong = (learner.say(batch) - batch.targets).square().mean(-1)
        seen = batch.inputs[..., 2] > 0
        coming = seen.flip(1).cumsum(1).flip(1) > 0
        between.append(wrong[coming & ~seen])
        after.append(wrong[~coming])
    return float(torch.cat(between).mean()), float(torch.cat(after).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 400), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = make({"task": "spiral_paths"})
    print("| | numbers trained | between sightings | after the last | seeds, after the last |\n" + "| --- " * 5 + "|")
    for arm in ARMS:
        found, size = [], 0
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            learner = Follower(arm)
            fit(learner, task, options.steps, seed)
            found.append(errors(learner, task))
            size = count(learner.model)
        scores = torch.tensor(found)
        deviation = scores.std(0, correction=min(1, options.seeds - 1))
        cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(scores.mean(0).tolist(), deviation.tolist(), strict=True)]
        seeds = ", ".join(f"{after:.4f}" for _, after in found)
        print(f"| {arm} | {size:,} | {' | '.join(cells)} | {seeds} |", flush=True)


if __name__ == "__main__":
    main()
