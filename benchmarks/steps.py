"""What a single step costs: our cells beside torch.nn's, without gradients, from a state to the next.

    python -m benchmarks.steps [--threads N] [--seconds S] [--only lstm,gru,elman,slstm,own]

Contenders run in turn in short repeats; the least time of each is taken, which other programs on the machine can
lengthen but never shorten. Before a cell is timed its step is compared with the loop's. The bound is the time that
reading the weights once takes, at the speed at which this machine sums an array of their size; `most` is the ratio of a
step that took no longer, and where it is less than what is asked, no program can have that. Where torch.nn has no such
cell the peer is nn.LSTM. Results go to benchmarks/results/steps.json.
"""

import argparse
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.testing import assert_close

from benchmarks.bench import machine
from recurra import MIXERS, use
from recurra.files import write_json
from recurra.ops import Rule
from recurra.parts.cell import DenseCell
from recurra.state import leaves

RESULTS = pathlib.Path(__file__).parent / "results" / "steps.json"
WIDTHS, BATCHES = (64, 128, 256, 512), (1, 8)
# the ratio to the peer that is asked for at one row, by width
TARGETS = {"lstm": {64: 5, 128: 5, 256: 5, 512: 4}, "gru": dict.fromkeys(WIDTHS, 3), "elman": dict.fromkeys(WIDTHS, 3)}
PEERS = {"gru": nn.GRU, "elman": nn.RNN}


def leaky(drive, recur, state, log_rate):
    """Two gates and a leak of each unit's own: a user's cell."""
    h, trace = state
    trace = trace + torch.exp(log_rate) * (torch.tanh(drive[0] + recur[0]) - trace)
    h = torch.sigmoid(drive[1] + recur[1]) * torch.tanh(trace + h)
    return h, (h, trace)


class Own(nn.Module):
    """A user's cell, called as a mixer is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = DenseCell(Rule("leaky", leaky, 2, 2, state=2, params=1), width, width)

    def forward(self, x, state=None):
        return self.cell(x, self.cell.initial_state(len(x)) if state is None else state, None)


def ours(name: str, width: int) -> nn.Module:
    """A cell of ours by its name."""
    return Own(width) if name == "own" else MIXERS[name](width)


def race(contenders: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The least seconds of one call of each, in turns of some milliseconds: steps that follow steps."""
    least, repeats = {}, {}
    for name, run in contenders.items():
        run()
        start = time.perf_counter()
        run()
        repeats[name] = max(3, int(4e-3 / (time.perf_counter() - start)))
        least[name] = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in contenders.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            least[name] = min(least[name], (time.perf_counter() - start) / repeats[name])
    return least


def measure(name: str, width: int, batch: int, seconds: float) -> dict[str, Any]:
    """One row of the table.

    Raises:
        AssertionError: our step is not the loop's.
    """
    mixer, peer = ours(name, width), PEERS.get(name, nn.LSTM)(width, width, batch_first=True)
    x = torch.randn(batch, 1, width)
    _, state = mixer(x)
    _, hidden = peer(x)
    with use("loop"):
        want = mixer(x, state)
    for _ in range(2):
        assert_close([*leaves(mixer(x, state))], [*leaves(want)], rtol=1e-4, atol=1e-5)
    weights = torch.randn(sum(p.numel() for p in mixer.parameters()))
    contenders = {"ours": lambda: mixer(x, state), "peer": lambda: peer(x, hidden), "bound": weights.sum}
    least = race(contenders, seconds)
    return {
        "cell": name, "width": width, "batch": batch, "peer": type(peer).__name__,
        "microseconds": {key: round(1e6 * value, 2) for key, value in least.items()},
        "ratio": round(least["peer"] / least["ours"], 2),
        "most": round(least["peer"] / least["bound"], 2),
        "target": TARGETS.get(name, {}).get(width) if batch == 1 else None,
    }  # fmt: skip


def verdict(row: dict[str, Any]) -> str:
    """What is asked of a row, and whether it is met or forbidden."""
    target, ratio, most = row["target"], row["ratio"], row["most"]
    if target is None:
        return ""
    missed = "forbidden" if most < target else "MISSED"
    return f"asked {target}: {'met' if ratio >= target else missed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row of the table")
    parser.add_argument("--only", default="lstm,gru,elman,slstm,own")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    with torch.no_grad():
        for name, batch, width in itertools.product(options.only.split(","), BATCHES, WIDTHS):
            row = measure(name, width, batch, options.seconds)
            us = row["microseconds"]
            print(f"{name:6s} width {width:4d} batch {batch}  ours {us['ours']:8.2f} us  nn.{row['peer']} "
                  f"{us['peer']:8.2f} us  reading the weights {us['bound']:7.2f} us  {row['ratio']:6.2f} x "
                  f"of {row['most']:.2f} that reading them leaves  {verdict(row)}", flush=True)  # fmt: skip
            rows.append(row)
    options.output.parent.mkdir(exist_ok=True)
    write_json(options.output, {"machine": machine(options.threads), "date": time.strftime("%Y-%m-%d"), "rows": rows})
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
