"""Units of a trained network that an order says are implied, against the smallest and against any: at equal numbers.

python recipes/pruned_units.py [FOLDER]
"""

import argparse
import pathlib

import torch

from recurra import train
from recurra.lens import prune
from recurra.models import load
from recurra.tasks import make

WIDTH, SEEDS, STEPS, LENGTH = 32, 3, 600, 16
PATH = "backbone.blocks.0.mixer.cell"
LEAST, STRONGEST = (1, 8, 32), (0.01, 0.02, 0.05)


def config(mixer: str, seed: int) -> train.Config:
    return train.Config(
        source="parity", arguments={"width": WIDTH, "depth": 1, "pattern": mixer, "hidden": 0}, batch=64,
        length=LENGTH, steps=STEPS, learning_rate=1e-2, warmup=20, weight_decay=0.0, seed=seed, threads=1,
        evaluate_every=STEPS, checkpoint_every=STEPS, evaluation_tokens=8192,
    )  # fmt: skip


def rows(model: torch.nn.Module) -> list[tuple[str, list[prune.Pruned]]]:
    """What each choice keeps and scores, with the two others at as many units."""
    task = make({"task": "parity"})
    batches = [task.batch("test", i, 64, LENGTH, 0) for i in range(4)]
    found = []
    for least, strongest in zip(LEAST, STRONGEST, strict=True):
        every = prune.compare(model, task, PATH, batches, least=least, strongest=strongest)
        found += [(f"patterns that come {least} times", [every[0], *every[1:4]])]
        found += [(f"wiring, {strongest:.0%} of weights", [every[0], *every[4:7]])]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default="runs/recipes", help="of the runs")
    folder = parser.parse_args().folder / "pruned_units"
    torch.set_num_threads(1)
    for mixer in ("elman", "lstm"):
        runs = []
        for seed in range(SEEDS):
            run = folder / f"{mixer}-{seed}"
            train.train(config(mixer, seed), run, resume=(run / "config.json").exists())
            model = load(run)
            points = [prune.components(prune.cell_at(model, PATH), share) for share in STRONGEST]
            print(f"{mixer}, seed {seed}: points of the order of the wiring {points}", flush=True)
            runs.append(rows(model))
        for several in zip(*runs, strict=True):
            units = ", ".join(str(results[1].units) for _, results in several)
            scores = torch.tensor([[x.score for x in results] for _, results in several])
            shown = " | ".join(f"{x:.3f}" for x in scores.mean(0).tolist())
            print(f"| {mixer} | {several[0][0]} | {units} | {shown} |", flush=True)
