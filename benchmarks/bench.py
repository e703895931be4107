"""Every mixer beside each installed peer and torch's LSTM, for the same layer, in one run.

    python -m benchmarks.bench [--only NAME,...] [--sizes small,medium,long,growth] [--budget SECONDS] [--threads N]

Before a mixer is timed its numbers are compared with the loop's in float64, whole and cut in two; one that is red gets
no number, nor does a width at which memory or time do not suffice to compare. Contenders run in turn, each in a process
of its own, in float32; medians are given, and the ratio of each contender's times to ours, any over any: its median
and quartiles. A single step is of one row, without gradients. Results go to benchmarks/results/bench.json after every
mixer; Ctrl-C keeps what was measured.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.contender import OURS, Contender, Failed, Worker
from benchmarks.peers import BASELINE, PEERS, Peer
from benchmarks.sizes import GROWTH, LENGTHS, SIZES, Size, size
from recurra import MIXERS
from recurra.files import write_json
from recurra.ops import native

RESULTS = pathlib.Path(__file__).parent / "results" / "bench.json"
# what is timed, and its share of the budget
PARTS = {"train": 0.5, "forward": 0.3, "step": 0.2}
ROUNDS = 60
LEAST = 3  # samples, unless one takes longer than all are meant to take together
PATIENCE = 6  # budgets that a single answer may take
Say = Callable[[str], None]


def machine(threads: int) -> dict[str, Any]:
    """What ran this."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "unknown")
    compiler = "none: " + reason if (reason := native.available()) else native._version().splitlines()[0]
    return {"cpu": cpu, "threads": threads, "torch": torch.__version__, "compiler": compiler}


def spread(values: list[float]) -> dict[str, float | int]:
    """Median, quartiles and how many."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high, "samples": len(values)}


def race(workers: dict[str, Any], part: str, seconds: float, told: dict[str, float], limit: float) -> dict[str, Any]:
    """Times of each worker, in turns, for about `seconds`; a worker that fails is taken out and says why.

    A worker whose share is spent runs no more, once it has a few samples; one that takes all of the time for a single
    run is content with one. `told` are times that are known from before: one that is a whole share counts.
    """
    share = seconds / max(1, len(workers))
    times = {label: [x] if x > share else [] for label, x in told.items()}
    times = {label: times.get(label, []) for label in workers}
    spent = {label: sum(x) for label, x in times.items()}
    last, refused = dict(spent), {}
    for _ in range(ROUNDS):
        few = {x for x in workers if len(times[x]) < (LEAST if last[x] < seconds else 1)}
        turn = [x for x in workers if x not in refused and (x in few or spent[x] + last[x] <= share)]
        for label in turn:
            start = time.perf_counter()
            try:
                times[label].append(workers[label].ask(part, limit=limit))
            except Failed as reason:
                refused[label] = str(reason)
                continue
            last[label] = time.perf_counter() - start
            spent[label] += last[label]
        if not turn:
            break
    return {"times": {x: t for x, t in times.items() if x not in refused}, "refused": refused}


def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    """How many times longer each took than we did: any of its times over any of ours.

    Not round by round: who is slow runs once or twice, while ours is still cold.
    """
    return {
        label: {**spread([theirs / own for theirs in x for own in times[OURS]]), "samples": len(x)}
        for label, x in times.items()
        if label != OURS and x
    }


def measure(mixer: str, at: Size, labels: list[str], budget: float, threads: int, parts: list[str], start=Worker):
    """All that is measured of a mixer and its peers at one size: a row for each part, peaks of memory, refusals."""
    workers, refused, told, peak, limit = {}, {}, {}, {}, max(10.0, PATIENCE * budget)
    try:
        for label in labels:
            try:
                workers[label] = start(Contender(mixer, label, at, threads))
                told[label], peak[label] = workers[label].ask("first", limit=limit)
            except Failed as reason:
                refused[label] = str(reason)
                if label in workers:
                    workers.pop(label).close()
                if label == OURS:
                    break
        row: dict[str, Any] = {"size": at._asdict(), "peak": peak, "refused": refused}
        for part in parts:
            if OURS not in workers:
                break
            done = race(workers, part, budget * PARTS[part], told if part == "train" else {}, limit)
            for label, reason in done["refused"].items():
                refused.setdefault(label, f"{part}: {reason}")
            if OURS in done["refused"]:
                break
            row[part] = {"seconds": {x: spread(t) for x, t in done["times"].items()}, "ratio": ratios(done["times"])}
        return row
    finally:
        for worker in workers.values():
            worker.close()


def check(mixer: str, width: int, threads: int, start=Worker) -> str | None:
    """Why a mixer's numbers are red, None where they are right.

    Raises:
        Failed: they cannot be compared, as memory or time ran out: that says nothing of them.
    """
    worker = start(Contender(mixer, OURS, Size(1, 64, width), threads))
    try:
        return worker.ask("red")
    finally:
        worker.close()


def growth(mixer: str, budget: float, threads: int, lengths: Iterable[int] = LENGTHS, start=Worker) -> dict[str, Any]:
    """Cost a token of a forward at each length, as a multiple of that at the first; for about two budgets."""
    worker = None
    try:
        worker = start(Contender(mixer, OURS, Size(1, min(lengths), SIZES["long"].width), threads))
        cost = worker.ask("grow", tuple(lengths), 2 * budget, limit=max(60.0, 10 * PATIENCE * budget))
    except Failed as reason:
        return {"refused": str(reason)}
    finally:
        if worker is not None:
            worker.close()
    first = cost[min(cost)]
    return {
        "seconds": {str(T): spread(x) for T, x in cost.items()},
        "ratio": {str(T): spread([a / b for a, b in zip(x, first, strict=False)]) for T, x in cost.items()},
    }


def beside(before: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A mixer's new entry, with the sizes of the one before that were not measured again; a red one keeps nothing."""
    if "red" in row:
        return row
    return {**before, **row, "sizes": {**before.get("sizes", {}), **row["sizes"]}}


def one(mixer: str, sizes: list[str], peers: list[Peer], budget: float, threads: int, say: Say, start=Worker):
    """A mixer's whole entry: red and nothing else, or its sizes and its growth; what is not checked is not measured."""
    named = {x: size(x) for x in sizes if x != GROWTH}
    widths = {x.width for x in named.values()} or {SIZES["long"].width}
    unchecked: dict[int, str] = {}
    for width in sorted(widths):
        try:
            reason = check(mixer, width, threads, start)
        except Failed as why:
            unchecked[width] = f"not checked: {why}"
            continue
        if reason:
            say(f"  RED at width {width}: {reason}; no number is given")
            return {"red": reason}
    entry: dict[str, Any] = {"sizes": {}}
    slow: dict[str, str] = {}
    stepped: set[int] = set()
    for name, at in named.items():
        if at.width in unchecked:
            row = {"size": at._asdict(), "peak": {}, "refused": {OURS: unchecked[at.width]}}
            entry["sizes"][name] = row
            say(told(name, row))
            continue
        labels = [OURS, BASELINE.name, *(x.name for x in peers if x.name not in slow)]
        # a step knows no length
        parts = [x for x in PARTS if x != "step" or at.width not in stepped]
        stepped.add(at.width)
        row = measure(mixer, at, labels, budget, threads, parts, start)
        row["refused"] |= {x: f"not tried: {reason} at {where}" for x, (reason, where) in slow.items()}
        slow |= {x: (y, name) for x, y in row["refused"].items() if "not finished" in y and x not in slow}
        entry["sizes"][name] = row
        say(told(name, row))
    if GROWTH in sizes:
        why = unchecked.get(SIZES["long"].width)
        grown: dict[str, Any] = {"refused": why} if why else growth(mixer, budget, threads, LENGTHS, start)
        entry["growth"] = grown
        last = list(grown.get("ratio", {}).items())[-1:]
        say("  growth   " + "".join(f"a token at T {T} costs {x['median']:.2f} of one at 1024" for T, x in last))
    return entry


def told(name: str, row: dict[str, Any]) -> str:
    """A size's row for a terminal."""
    said = [f"  {name:8s}"]
    for part in PARTS:
        if part in row:
            ours = 1e3 * row[part]["seconds"][OURS]["median"]
            said.append(f"{part} {ours:.3f} ms")
            said += [f"{x['median']:.2f} x {label}" for label, x in row[part]["ratio"].items()]
    return "  ".join(said + [f"[{label}: {reason}]" for label, reason in row["refused"].items()])


def kept(path: pathlib.Path, here: dict[str, Any]) -> dict[str, Any]:
    """The mixers that a stored run of this machine measured."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    return stored["mixers"] if stored["machine"] == here else {}


def chosen(text: str | None) -> list[str]:
    """The mixers that are asked for, or all.

    Raises:
        SystemExit: there is no such mixer.
    """
    names = list(MIXERS) if text is None else text.split(",")
    for name in names:
        if name not in MIXERS:
            raise SystemExit(f"there is no mixer {name!r}: `recurra list` names them")
    return names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="mixers, with commas; others keep what is stored of this machine")
    parser.add_argument("--sizes", default=",".join((*SIZES, GROWTH)), help="names, or BATCHxSTEPSxWIDTH")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for a mixer and its peers at one size")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args(arguments)
    names, sizes = chosen(options.only), options.sizes.split(",")
    for name in sizes:
        if name != GROWTH:
            try:
                size(name)
            except ValueError as error:
                raise SystemExit(str(error)) from error
    here = machine(options.threads)
    versions = {x.package: x.version() for several in PEERS.values() for x in several if x.package != "torch"}
    for package, version in versions.items():
        print(f"peer {package}: {version or 'not installed'}")
    stored = {
        "machine": here, "date": time.strftime("%Y-%m-%d"), "budget": options.budget, "peers": versions,
        "mixers": kept(options.output, here) if options.only else {},
    }  # fmt: skip
    options.output.parent.mkdir(exist_ok=True)
    began = time.perf_counter()
    try:
        for i, name in enumerate(names, 1):
            print(f"[{i}/{len(names)}, {time.perf_counter() - began:.0f} s] {name}", flush=True)
            peers = [x for x in PEERS.get(name, ()) if x.version() is not None]
            say = functools.partial(print, flush=True)
            row = one(name, sizes, peers, options.budget, options.threads, say)
            stored["mixers"][name] = beside(stored["mixers"].get(name, {}), row)
            write_json(options.output, stored)
    except KeyboardInterrupt:
        print(f"stopped; {options.output} has what was measured", file=sys.stderr)
        return 130
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
