"""Copying learned forwards: an online learner against backpropagation cut where it would need more memory, and uncut.

python recipes/online_copying.py [--steps 200] [--seeds 3] [--run runs/recipes/online_copying]
"""

import argparse
import json
import pathlib

import torch

from recurra.train import Config, train

# cut to windows of 4 steps, backpropagation keeps about what the online learner does
ARMS = {
    "online_lru": ("online_lru", {}),
    "tbptt, 4 steps": ("tbptt", {"window": 4}),
    "bptt": ("bptt", {}),
}


def config(name: str, steps: int, seed: int) -> Config:
    """Five symbols of four kinds, held for thirteen steps; one layer of linear recurrent units."""
    rule, arguments = ARMS[name]
    return Config(
        source="copying", task={"symbols": 4, "items": 5}, rule=rule, rule_arguments=arguments,
        arguments={"width": 32, "depth": 1, "pattern": "lru"},
        batch=32, length=24, steps=steps, learning_rate=1e-2, weight_decay=0.0, seed=seed,
        evaluation_tokens=20_000, evaluate_every=steps, checkpoint_every=steps, threads=1,
    )  # fmt: skip


def memory(folder: pathlib.Path) -> int:
    """What the rule kept, in bytes, as the run has it."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return next(line["memory_bytes"] for line in lines if "memory_bytes" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 200), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", type=pathlib.Path, default=pathlib.Path("runs/recipes/online_copying"))
    options = parser.parse_args()
    print("| | bytes kept | held-out accuracy | by seed | seconds a run |\n" + "| --- " * 5 + "|")
    for name in ARMS:
        scores, seconds, kept = [], [], 0
        for seed in range(options.seeds):
            folder = options.run / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            result = train(config(name, options.steps, seed), folder)
            scores.append(result.score)
            seconds.append(result.seconds)
            kept = memory(folder)
        found = torch.tensor(scores)
        deviation = found.std(correction=min(1, options.seeds - 1))
        seeds = ", ".join(f"{x:.3f}" for x in scores)
        took = sum(seconds) / len(seconds)
        print(f"| {name} | {kept:,} | {found.mean():.3f} ± {deviation:.3f} | {seeds} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
