"""A teacher of 100 units, 10 of them recorded: how much of the other 90 is found in a network that never saw them.

python recipes/target_dynamics.py [--steps 600] [--seeds 3] [--run runs/recipes/target_dynamics]
"""

import argparse
import pathlib
from typing import Any

import torch
from torch import Tensor

from recurra.models import MODELS
from recurra.parts.ridge import ridge
from recurra.tasks import make
from recurra.train import Config, train
from recurra.train.rules.target_dynamics import rates_of

STRENGTHS = (0.0, 10.0)
UNITS, RECORDED = 100, 10


def config(steps: int, seed: int, strength: float) -> Config:
    return Config(
        source="recordings", task={"units": UNITS, "recorded": RECORDED, "gain": 1.5, "teacher": seed},
        rule="target_dynamics", rule_arguments={"strength": strength},
        arguments={"width": 128, "depth": 1, "pattern": "ctrnn", "hidden": 0},
        batch=32, length=64, steps=steps, learning_rate=3e-3, weight_decay=0.0, seed=seed,
        evaluate_every=steps, checkpoint_every=steps, threads=1,
    )  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 600), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", type=pathlib.Path, default=pathlib.Path("runs/recipes/target_dynamics"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(options.seeds):
        settings = config(options.steps, seed, 0.0)
        task = make({"task": settings.source, **settings.task})
        torch.manual_seed(seed)
        drawn = MODELS["forecaster"](**settings.arguments, **task.model_arguments())
        print(f"seed {seed}: as drawn {found(drawn, task, settings)}", flush=True)
        for strength in STRENGTHS:
            settings, folder = config(options.steps, seed, strength), options.run / f"{strength:g}-{seed}"
            with torch.enable_grad():
                result = train(settings, folder)
            model = MODELS["forecaster"].from_pretrained(folder)
            print(
                f"seed {seed}: strength {strength:g} output error {result.score:.4f} of {result.chance:.4f},", end=" "
            )
            print(found(model, task, settings), flush=True)


def found(model: Any, task: Any, settings: Config) -> str:
    """How much of the variance is explained, on held-out rows, of units as they are and of others after a linear map.

    The map from the network's rates to the teacher's unrecorded units is a ridge regression on other rows.
    """
    rows = [task.batch(split, 9999, 128, 64, 0) for split in ("train", "test")]
    mine, theirs = ([f(batch).double() for batch in rows] for f in (
        lambda batch: rates_of(model, batch, None, settings)[0], lambda batch: task.rates(batch.inputs)
    ))  # fmt: skip
    weight, bias = ridge(mine[0].flatten(0, 1), theirs[0][..., RECORDED:].flatten(0, 1), 1e-3)
    unseen = explained(mine[1] @ weight.T + bias, theirs[1][..., RECORDED:])
    seen = explained(mine[1][..., :RECORDED], theirs[1][..., :RECORDED])
    return f"recorded units themselves {seen:.3f}, unrecorded units after a linear map {unseen:.3f}"


def explained(said: Tensor, wanted: Tensor) -> float:
    return 1 - float((said - wanted).square().sum() / (wanted - wanted.mean((0, 1))).square().sum())


if __name__ == "__main__":
    main()
