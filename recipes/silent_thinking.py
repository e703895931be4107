"""Nested logic deeper than trained, with more loops than trained: a training for each seed, then every depth and loop.

    python recipes/silent_thinking.py [FOLDER]

Not a shell script, as `recurra compare` asks for one score and this for a table of depths and loops.
"""

import argparse
import dataclasses
import pathlib
import statistics

import torch

from recurra import train
from recurra.models import load
from recurra.tasks import make

DEPTHS, LOOPS = (2, 4, 6, 8), (1, 2, 3, 4, 6, 8, 12)
TRAINED = train.Config(
    source="nested_logic",
    task={"least": 1, "most": 4},
    model="depth_recurrent",
    arguments={"width": 48, "pattern": "gated_deltanet", "hidden": 96, "loops": 6, "trained": [3, 6], "scale": 0.1},
    batch=64,
    length=36,
    steps=500,
    learning_rate=5e-3,
    evaluate_every=250,
    evaluation_tokens=8192,
    checkpoint_every=250,
    threads=1,
)
LENGTH, ROWS, BATCHES = 64, 64, 4  # of what is evaluated


@torch.no_grad()
def table(model):
    """Held-out accuracy for each depth (rows) and number of loops."""
    rows = []
    for depth in DEPTHS:
        task, scores = make({"task": "nested_logic", "least": depth, "most": depth}), []
        data = [task.batch("test", i, ROWS, LENGTH, 0) for i in range(BATCHES)]
        for count in LOOPS:
            outputs = [model(x.inputs, model.initial_state(ROWS, count))[0] for x in data]
            right = [task.score(y, x) for y, x in zip(outputs, data, strict=True)]
            scores.append(sum(r for r, _ in right) / sum(n for _, n in right))
        rows.append(scores)
    return rows


def page(name, depths, counts, tables):
    """The tables of all seeds as one in Markdown: mean and standard deviation."""
    lines = [f"| {name} | " + " | ".join(f"{n} loops" if n > 1 else "1 loop" for n in counts) + " |"]
    lines.append("|---" * (len(counts) + 1) + "|")
    for i, depth in enumerate(depths):
        cells = [[one[i][j] for one in tables] for j in range(len(counts))]
        shown = [f"{statistics.fmean(c):.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:.2f}" for c in cells]
        lines.append(f"| {depth} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main(folder, config=TRAINED, seeds=3):
    """Train what is not trained yet, and print the table."""
    torch.set_num_threads(1)
    tables = []
    for seed in range(seeds):
        run = pathlib.Path(folder) / f"seed-{seed}"
        train.train(dataclasses.replace(config, seed=seed), run, resume=run.exists())
        tables.append(table(load(run)))
    print(page("depth", DEPTHS, LOOPS, tables))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="runs/recipes/silent_thinking", help="of the runs")
    main(parser.parse_args().folder)
