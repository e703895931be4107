"""How many patterns a Hopfield network finds again from damaged copies: by Hebb, by projection, and the modern one.

python recipes/hopfield_capacity.py
"""

import argparse

import torch

from recurra.memory.hopfield import ClassicalHopfield, update

UNITS, FLIPPED, BETA, TRIED, SEEDS = 400, 0.2, 0.5, 20, 3
LOADS = (0.025, 0.05, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 0.9, 2.5, 25.0)


def overlap(load: float, seed: int) -> list[float | None]:
    """The mean overlap of what is found with what was stored; none where projection has no more patterns to give."""
    torch.manual_seed(seed)
    stored = torch.randn(round(load * UNITS), UNITS).sign()
    some = stored[:TRIED]
    damaged = torch.where(torch.rand_like(some) < FLIPPED, -some, some)
    found = [
        ClassicalHopfield.hebbian(stored).recall(damaged) if load <= 1 else None,
        ClassicalHopfield.projection(stored).recall(damaged) if load <= 1 else None,
        update(damaged, stored, BETA).sign(),
    ]
    return [None if one is None else (one * some).mean().item() for one in found]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| patterns / units | patterns | Hebb | projection | modern |\n| --- | --- | --- | --- | --- |")
    for load in LOADS:
        columns = zip(*(overlap(load, seed) for seed in range(SEEDS)), strict=True)
        cells = []
        for column in columns:
            known = torch.tensor([x for x in column if x is not None])
            cells.append(f"{known.mean():.3f} ± {known.std():.3f}" if len(known) else "")
        print(f"| {load:g} | {round(load * UNITS)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
