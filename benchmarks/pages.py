"""What `recurra.pages` is worth: training steps in processes that have huge pages and in others that do not, in turn.

    python -m benchmarks.pages [--only mingru,gla,...] [--rounds N] [--threads N]

Printed are milliseconds of a forward and backward of one row at width 128, medians of all rounds, without and with.
Results go to benchmarks/results/pages.json.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections import defaultdict

from benchmarks.bench import machine
from benchmarks.contender import OURS, Contender, Workbench
from benchmarks.sizes import Size
from recurra.files import write_json
from recurra.pages import KEPT, MAPPED, SWITCH

RESULTS = pathlib.Path(__file__).parent / "results" / "pages.json"
LENGTHS, WIDTH, REPEATS = (512, 16384, 65536), 128, 5


def times(names: list[str], threads: int) -> dict[str, list[float]]:
    """Seconds of training steps in this process, by mixer and length."""
    benches = {f"{x} {T}": Workbench(Contender(x, OURS, Size(1, T, WIDTH), threads)) for x in names for T in LENGTHS}
    return {label: [bench.train() for _ in range(REPEATS + 1)][1:] for label, bench in benches.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages")
    parser.add_argument("--only", default="mingru,gla,s5,mamba2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="one round, in this process, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(times(options.only.split(","), options.threads)))
        return
    again = [sys.executable, "-m", "benchmarks.pages", "--here", *sys.argv[1:]]
    # this process has set them for those that it starts
    bare = {x: y for x, y in os.environ.items() if x not in (KEPT[0], MAPPED[0])}
    samples = {"0": defaultdict(list), "1": defaultdict(list)}
    for _ in range(options.rounds):
        for switch, found in samples.items():
            done = subprocess.run(again, env=bare | {SWITCH: switch}, stdout=subprocess.PIPE, check=True)
            for label, seconds in json.loads(done.stdout).items():
                found[label] += seconds
    table = {x: [round(1000 * statistics.median(found[x]), 1) for found in samples.values()] for x in samples["0"]}
    for label, (without, with_them) in table.items():
        print(f"{label:16} {without:8.1f} {with_them:8.1f} ms  {without / with_them:.2f} times as fast")
    write_json(RESULTS, {"machine": machine(options.threads), "milliseconds without and with": table})


if __name__ == "__main__":
    main()
