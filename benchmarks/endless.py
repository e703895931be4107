"""A stream that never ends: resident memory and time per step of generation over a million steps.

    python benchmarks/endless.py [--pattern mamba2] [--steps 1000000] [--width 64] [--depth 2]

Prints one line every tenth of the way and, at the end, how far memory rose after the first thousand steps and the time
per step of the last tenth over that of the second. Writes benchmarks/results/endless.json.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch

from recurra.models import LanguageModel, count
from recurra.state import nbytes

RESULTS = pathlib.Path(__file__).parent / "results"


def resident() -> int:
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", default="mamba2")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LanguageModel(vocabulary=256, width=options.width, depth=options.depth, pattern=options.pattern).eval()
    start, tenths, clock = 0, [], time.perf_counter()
    rose = 0
    for step, _ in enumerate(
        model.stream(torch.tensor([[0]]), max_new_tokens=options.steps, do_sample=True, seed=0), 1
    ):
        if step == 1000:
            start = resident()
        if step > 1000 and step % 1000 == 0:
            rose = max(rose, resident() - start)
        if step % (options.steps // 10) == 0:
            now = time.perf_counter()
            tenths.append((now - clock) / (options.steps // 10) * 1e6)
            clock = now
            print(f"{step:>9,} steps  {tenths[-1]:7.1f} us a step  {rose / 2**20:+.3f} MiB", flush=True)
    row = dict(
        pattern=options.pattern, parameters=count(model), steps=options.steps,
        state_bytes=nbytes(model.initial_state(1)), rose_mib=rose / 2**20,
        microseconds=tenths, last_over_median=tenths[-1] / statistics.median(tenths),
    )  # fmt: skip
    print(f"memory rose by {row['rose_mib']:.3f} MiB; the last tenth took {row['last_over_median']:.3f} of the median")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "endless.json").write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
