"""Where torch's fused functions are faster than our kernels for the same cell: what `ops/cell/native.py` goes by.

    python -m benchmarks.choose [--seconds S] [--rules lstm,gru_after,...] [--widths 64,...] [--rows 1,...]

Both run the same record, in turns, from a single step of one row to 64 rows at width 1024, on one thread, without
gradients and in training (forward and backward); the least time of each is taken. At the end it says what `RUNS`,
`TRAINS` and `CROWD` would be: the most steps at which torch was faster by more than a twentieth at half of the sizes or
more. Results go to benchmarks/results/choose.json.
"""

import argparse
import itertools
import pathlib
import statistics
import time
from typing import Any

import torch

from benchmarks.bench import machine
from benchmarks.steps import race
from recurra.files import write_json
from recurra.ops import Cell, Rule
from recurra.ops.cell import native, rules, torch as fused

RESULTS = pathlib.Path(__file__).parent / "results" / "choose.json"
RULES = {x.name: x for x in (rules.LSTM, rules.GRU_AFTER, rules.ELMAN_TANH, rules.ELMAN_RELU)}
WIDTHS, ROWS, STEPS = (64, 128, 256, 512, 1024), (1, 2, 4, 8, 16, 32, 48, 64), (1, 2, 4, 8, 32, 128)
MARGIN = 1.05


def record(rule: Rule, batch: int, steps: int, width: int, trains: bool) -> tuple[Cell, tuple[torch.Tensor, ...]]:
    """A layer and its start."""
    make = lambda *shape: (torch.randn(shape) / width**0.5).requires_grad_(trains)  # noqa: E731
    params = make(rule.params, width) if rule.params else None
    weights = make(rule.drive * width, width), make(rule.drive * width)
    cell = Cell(rule, make(batch, steps, width), make(rule.drive, 1, width, width), params, None, None, None, *weights)
    return cell, tuple(torch.zeros(batch, width) for _ in range(rule.state))


def compare(rule: Rule, batch: int, steps: int, width: int, trains: bool, seconds: float) -> dict[str, Any]:
    """One size: microseconds of both, and torch's over ours."""
    cell, state = record(rule, batch, steps, width, trains)
    wanted = [x for x in cell if isinstance(x, torch.Tensor)]
    grad = torch.ones(batch, steps, width)

    def run(implementation: Any) -> Any:
        if trains:
            return lambda: torch.autograd.grad(implementation.scan(cell, state)[0], wanted, grad)
        plan = native.plan(cell, state) if implementation is native else None
        return (lambda: plan(cell, state)) if plan is not None else lambda: implementation.scan(cell, state)

    with torch.set_grad_enabled(trains):
        least = race({"ours": run(native), "torch": run(fused)}, seconds)
    return {
        "rule": rule.name, "batch": batch, "steps": steps, "width": width, "trains": trains,
        "microseconds": {key: round(1e6 * value, 2) for key, value in least.items()},
        "ratio": round(least["torch"] / least["ours"], 3),
    }  # fmt: skip


def advice(rows: list[dict[str, Any]]) -> list[str]:
    """For each rule and number of rows: up to how many steps torch was faster."""
    said = []
    for trains in (False, True):
        for rule, batch in sorted({(x["rule"], x["batch"]) for x in rows}):
            these = [x for x in rows if (x["rule"], x["batch"], x["trains"]) == (rule, batch, trains)]
            most = 0
            for steps in sorted({x["steps"] for x in these}):
                lost = [MARGIN * x["ratio"] < 1 for x in these if x["steps"] == steps]
                most = steps if statistics.mean(lost) >= 0.5 else most
            if most:
                said.append(f"{'TRAINS' if trains else 'RUNS'}[{rule}] = {most} at {batch} rows")
    return said or ["torch is nowhere faster: TRAINS and RUNS may be empty"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each size")
    parser.add_argument("--rules", default=",".join(RULES))
    for name, several in (("widths", WIDTHS), ("rows", ROWS), ("steps", STEPS)):
        parser.add_argument(f"--{name}", default=",".join(map(str, several)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    if wrong := set(options.rules.split(",")) - set(RULES):
        parser.error(f"no rule {', '.join(sorted(wrong))}: name some of {', '.join(RULES)}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    widths, batches, lengths = (
        [int(x) for x in text.split(",")] for text in (options.widths, options.rows, options.steps)
    )
    rows = []
    for name, trains in itertools.product(options.rules.split(","), (False, True)):
        for batch, steps, width in itertools.product(batches, lengths, widths):
            row = compare(RULES[name], batch, steps, width, trains, options.seconds)
            rows.append(row)
            if row["ratio"] < 1:
                print(f"{name} {'trains' if trains else 'runs'} B {batch} T {steps} D {width}: torch is faster, "
                      f"{row['ratio']:.2f} x, {row['microseconds']}", flush=True)  # fmt: skip
    told = advice(rows)
    print("\n".join(told))
    options.output.parent.mkdir(exist_ok=True)
    result = {"machine": machine(options.threads), "date": time.strftime("%Y-%m-%d"), "advice": told, "rows": rows}
    write_json(options.output, result)
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
