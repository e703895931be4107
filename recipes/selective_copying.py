"""Selective copying by models of mixers alone, as the paper of Mamba has them: no MLP between.

python recipes/selective_copying.py [--steps 1000] [--seeds 3] [--run runs/recipes/selective_copying-alone]
"""

import argparse
import pathlib

from recurra.train import CompareConfig, compare

# a size that all of them can have
PARAMETERS, MIXERS = 38_800, ("mamba", "mingru", "lstm", "s4d")


def config(steps: int, seeds: int) -> CompareConfig:
    """The data and the rate of `selective_copying.sh`; there is no MLP, and widths are larger for it."""
    return CompareConfig(
        source="selective_copying", task={"symbols": 6, "items": 4}, mixers=MIXERS, parameters=PARAMETERS,
        seeds=seeds, arguments={"depth": 2, "hidden": 0, "mixers": {"s4d": {"units": 80}}},
        training={"batch": 64, "length": 32, "steps": steps, "learning_rate": 6e-3},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 1000), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", type=pathlib.Path, default=pathlib.Path("runs/recipes/selective_copying-alone"))
    options = parser.parse_args()
    rows = compare(config(options.steps, options.seeds), options.run, options.run.exists(), workers=1)
    print("| mixer | held-out accuracy | by seed | parameters | state bytes |\n" + "| --- " * 5 + "|")
    for row in rows:
        score = f"{row['score_mean']:.3f} ± {row['score_spread']:.3f}"
        seeds = ", ".join(f"{x:.3f}" for x in row["scores"])
        print(f"| {row['mixer']} | {score} | {seeds} | {row['parameters']:,} | {row['state_bytes']:,} |")


if __name__ == "__main__":
    main()
