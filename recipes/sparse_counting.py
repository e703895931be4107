"""A wide sparse LSTM against a narrow dense one with as many weights: counting modulo 5.

python recipes/sparse_counting.py [FOLDER]
"""

import argparse
import pathlib

import torch

from recurra import train
from recurra.models import LanguageModel, count
from recurra.parts.masks import matrices

NARROW, WIDE, SEEDS, STEPS = 17, 48, 3, 1000
ARMS = {"dense, narrow": None, "static": "static", "set": "set", "rigl": "rigl", "hebbian": "hebbian"}


def model(width: int) -> dict:
    return {"width": width, "depth": 1, "pattern": "lstm", "hidden": 0}


def density() -> float:
    """Of the wide network's matrices, such that it has as many numbers to train as the narrow one."""
    narrow, wide = (LanguageModel(vocabulary=5, **model(width)) for width in (NARROW, WIDE))
    masked = sum(m.parameter.numel() for m in matrices(wide).values())
    return (count(narrow) - (count(wide) - masked)) / masked


def config(mask: str | None, seed: int) -> train.Config:
    given = {} if mask is None else {"density": density()} if mask == "static" else {"density": density(), "every": 20}
    return train.Config(
        source="modular_counting", arguments=model(NARROW if mask is None else WIDE), mask=mask, mask_arguments=given,
        batch=64, length=12, steps=STEPS, learning_rate=2e-2, warmup=20, weight_decay=0.0, seed=seed, threads=1,
        evaluate_every=STEPS, checkpoint_every=STEPS, evaluation_tokens=16384, evaluation_length=24,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default="runs/recipes", help="of the runs")
    folder = parser.parse_args().folder / "sparse_counting"
    for name, mask in ARMS.items():
        scores, numbers, width = [], 0, NARROW if mask is None else WIDE
        for seed in range(SEEDS):
            run = folder / f"{mask or 'dense'}-{seed}"
            result = train.train(config(mask, seed), run, resume=(run / "config.json").exists())
            scores.append(result.score)
            numbers = result.parameters
        mean, each = torch.tensor(scores), ", ".join(f"{x:.3f}" for x in scores)
        print(f"| {name} | {width} | {numbers:,} | {mean.mean():.3f} ± {mean.std():.3f} | {each} |", flush=True)
