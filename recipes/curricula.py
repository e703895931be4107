"""Parity of the last n bits, n from 2 up: one head at a time, or all up to the newest. What is kept, and how slowly.

python recipes/curricula.py [--longest 16] [--steps 1500] [--seeds 3] [--run runs/recipes/curricula]
"""

import argparse
import math
import pathlib

import torch
from torch import Tensor

from recurra import state as states
from recurra.models import MODELS
from recurra.tasks import make
from recurra.train import Config, train
from recurra.train.checkpoints import found
from recurra.train.forward import forward
from recurra.train.rules.target_dynamics import rates_of

CURRICULA = {"multi-head": 0, "single-head": 1}


def config(longest: int, steps: int, seed: int, keep: int) -> Config:
    """Rate units that start as fast as their input; three windows a row."""
    return Config(
        source="window_parity", task={"longest": longest}, rule="curriculum", rule_arguments={"keep": keep},
        arguments={
            "width": 64, "depth": 1, "pattern": "ctrnn", "mixers": {"ctrnn": {"slowest": 1.0}}, "hidden": 0,
        },
        batch=64, length=3 * longest, steps=steps, learning_rate=3e-3, final_learning_rate=3e-3, weight_decay=0.0,
        seed=seed, evaluate_every=steps, checkpoint_every=steps, threads=1,
    )  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("longest", 16), ("steps", 1500), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", type=pathlib.Path, default=pathlib.Path("runs/recipes/curricula"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, keep in CURRICULA.items():
        for seed in range(options.seeds):
            settings, folder = config(options.longest, options.steps, seed, keep), options.run / f"{name}-{seed}"
            with torch.enable_grad():
                train(settings, folder)
            report(f"{name}, seed {seed}", settings, folder)


def report(name: str, settings: Config, folder: pathlib.Path) -> None:
    """Say how far it came, what it still knows, and the time constants of units and of the network."""
    model = MODELS["language_model"].from_pretrained(folder)
    task = make({"task": settings.source, **settings.task})
    batch = task.batch("test", 0, 256, settings.length, 0)
    _, level, _ = states.load(found(folder)[0] / "state.safetensors", model)[0]
    _, right = task.heads(forward(model, batch, None, settings)[0], batch)
    rates, _, _ = rates_of(model, task.batch("test", 1, 64, 400, 0), None, settings)
    tau = model.backbone.blocks[0].mixer.log_tau.exp()
    print(f"{name}: reached n = {int(level) + 1}; tau {tau.mean():.3f} ± {tau.std():.3f}; ", end="")
    print(f"network {network_time(rates[:, 100:]):.2f}; right at n = 2, 3, ... ", end="")
    print(" ".join(f"{x:.2f}" for x in right.tolist()), flush=True)


def network_time(rates: Tensor) -> float:
    """Steps until the autocorrelation of the rates, mean over units and rows, has fallen to 1/e."""
    centred = rates - rates.mean(1, keepdim=True)
    lags = [(centred[:, : len(rates[0]) - lag] * centred[:, lag:]).mean() for lag in range(60)]
    share = torch.stack(lags) / lags[0]
    below = int((share < math.exp(-1)).nonzero()[0]) if (share < math.exp(-1)).any() else len(lags) - 1
    one, other = float(share[below - 1]), float(share[below])
    return below - 1 + (one - math.exp(-1)) / (one - other)


if __name__ == "__main__":
    main()
