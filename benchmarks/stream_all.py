"""A long stream through every mixer: is its state bounded, does memory stay flat, and where does float32 end up?

    python benchmarks/stream_all.py [--steps 1000000] [--width 16] [--mixers lstm,mamba2] [--seconds 120]

Every mixer reads the same noise in pieces with the state handed across, in float32 and in float64. For each: the
largest number in the state after every tenth of the way, the error of the outputs of the last piece of each tenth over
their size, resident memory then and how far it rose after the first tenth, and how fast two states in float64 part from
each other that begin 1e-9 apart (an estimate of the Lyapunov exponent, in nats a step, over the next 32,768 steps or as
many as a quarter of the seconds allow): float32 may not leave float64 where it is below zero. A mixer that takes longer
than `--seconds` stops there and says how many steps it did; one whose state grows is left out. Writes
benchmarks/results/stream_all.json after every mixer, and keeps the rows of mixers that were not run.
"""

import argparse
import copy
import functools
import json
import math
import pathlib
import time
from typing import Any

import torch

from recurra import MIXERS, state as states
from recurra.shapes import widen

RESULTS = pathlib.Path(__file__).parent / "results" / "stream_all.json"
PIECE, APART = 1024, 1e-9
FURTHER = 32 * PIECE  # steps over which states part: over fewer an exponent of 1e-5 a step cannot be told from none


def resident() -> int:
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def moves(x: torch.Tensor) -> bool:
    """Whether a part of a state is numbers and not counts."""
    return x.is_floating_point() or x.is_complex()


def largest(state: Any) -> float:
    """The largest size of a number in a state."""
    return max((float(x.abs().max()) for x in states.leaves(state) if x.numel() and moves(x)), default=0.0)


def distance(one: Any, other: Any) -> float:
    """Between two states: the length of all differences together."""
    pairs = zip(states.leaves(one), states.leaves(other), strict=True)
    return math.sqrt(sum(float((a - b).abs().square().nansum()) for a, b in pairs if moves(a)))


def nudge(x: torch.Tensor) -> torch.Tensor:
    """A little elsewhere."""
    return x + APART * torch.randn_like(x) if moves(x) else x


def between(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """From a some of the way to b."""
    return a + share * (b - a) if moves(a) else a


@torch.no_grad()
def exponent(mixer: Any, state: Any, x: torch.Tensor, seconds: float) -> float:
    """How fast states part, in nats a step: two runs, brought back to where they began apart after every piece."""
    total, count, other, started = 0.0, 0, states.each(nudge, state), time.perf_counter()
    before = distance(state, other)
    for part in x.split(64, 1):
        if count >= PIECE and time.perf_counter() - started > seconds:
            break
        (_, state), (_, other) = mixer(part, state), mixer(part, other)
        after = distance(state, other)
        if after == 0 or before == 0:
            return -math.inf
        if not math.isfinite(after):
            return math.inf
        total, count = total + math.log(after / before), count + part.shape[1]
        other = states.each(functools.partial(between, share=APART / after), state, other)
        before = distance(state, other)
    return total / count


@torch.no_grad()
def stream(name: str, steps: int, width: int, seconds: float) -> dict[str, Any]:
    """One mixer's row."""
    torch.manual_seed(0)
    mixer = MIXERS[name](width).eval()
    truth, random = copy.deepcopy(mixer).double(), torch.Generator().manual_seed(1)
    narrow: Any = mixer.initial_state(1)
    wide: Any = states.each(lambda s: widen(s, torch.float64), narrow)
    started, done, start = time.perf_counter(), 0, resident()
    row: dict[str, Any] = {"mixer": name, "state_max": [], "error": [], "resident_mib": []}
    while done < steps and time.perf_counter() - started < seconds:
        x = torch.randn(1, min(PIECE, steps - done), width, generator=random)
        y, narrow = mixer(x, narrow)
        exact, wide = truth(x.double(), wide)
        tenth, done = done * 10 // steps, done + x.shape[1]
        late = time.perf_counter() - started >= seconds
        if done * 10 // steps > tenth or late:
            row["state_max"].append(largest(narrow))
            row["error"].append(float((y - exact).abs().max() / exact.abs().max().clamp_min(1e-30)))
            row["resident_mib"].append(round(resident() / 2**20, 2))
        # what the first pieces take once is no leak
        start = resident() if tenth == 0 and not late else start
    row |= {"steps": done, "rose_mib": (resident() - start) / 2**20, "seconds": time.perf_counter() - started}
    further = torch.randn(1, FURTHER, width, generator=random).double()
    return row | {"lyapunov": exponent(truth, wide, further, seconds / 4)}


def keep(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Put a mixer's row into the file, in the place of an earlier one."""
    rows = {x["mixer"]: x for x in (json.loads(path.read_text()) if path.exists() else [])}
    # no infinity in JSON: null is "states met, or ran away"
    rows[row["mixer"]] = row | {"lyapunov": row["lyapunov"] if math.isfinite(row["lyapunov"]) else None}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([rows[name] for name in MIXERS if name in rows], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--mixers", default=",".join(MIXERS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.mixers.split(","):
        if MIXERS[name].grows:
            continue
        try:
            row = stream(name, options.steps, options.width, options.seconds)
        except ValueError as error:
            # such as a weight by place, which is of a length
            print(f"{name:28} refuses: {error}", flush=True)
            continue
        error, most = (f"{max(row[key], default=math.nan):.1e}" for key in ("error", "state_max"))
        print(f"{name:28} {row['steps']:>9,} steps  state {most}  error {error}", end="  ")
        print(f"lyapunov {row['lyapunov']:+.1e}  memory {row['rose_mib']:+.1f} MiB", flush=True)
        keep(options.out, row)


if __name__ == "__main__":
    main()
