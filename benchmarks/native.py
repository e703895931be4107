"""What compiled kernels are worth, always as a ratio against a named peer in the same run.

    python benchmarks/native.py [--threads N] [--rounds N] [--only diag,outer,...]

Contenders run in turn, again and again, so that a busy machine slows all of them; medians are compared. Every pair
is first compared by its numbers: no time is given for an engine that is wrong. Results go to
benchmarks/results/native.json.
"""

import argparse
import json
import pathlib
import platform
import statistics
import time

import torch
from torch.nn import functional as F

from recurra.ops import MIN_MAX, Delta, Diag, LowRank, Outer, Selective, ShortConv, native
from recurra.ops.diag.native import _fields
from recurra.ops.scan import IMPLEMENTATIONS, name_of
from recurra.shapes import Tensor

RESULTS = pathlib.Path(__file__).parent / "results" / "native.json"
# a contender slower than this many seconds runs fewer rounds
SLOW = 2.0


def module(record, name):
    return next(m for m in IMPLEMENTATIONS[type(record)] if name_of(m) == name)


def floats(record):
    return [x for x in record if isinstance(x, Tensor) and x.is_floating_point()]


def forward(name, record, state):
    """Run without gradients."""
    scan = module(record, name).scan

    def run():
        with torch.no_grad():
            return scan(record, state)[0]

    return run


def train(name, record, state):
    """Run, then the gradients of everything, from a gradient that is there already."""
    scan = module(record, name).scan
    leaves = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in record]
    record = type(record)(*leaves)
    grad = torch.ones_like(record.output)

    def run():
        return torch.autograd.grad(scan(record, state)[0], floats(record), grad)[0]

    return run


def race(contenders, rounds):
    """Median seconds of each, in turns."""
    times = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            if turn > 2 and min(times[name]) > SLOW:
                continue
            start = time.perf_counter()
            run()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(several) for name, several in times.items()}


def agree(one, other):
    scale = other.abs().max().clamp_min(1e-6)
    return bool(((one - other).abs().max() / scale) < 1e-3)


def diag_record(B, T, D, ring=None):
    if ring is None:
        return Diag(torch.rand(B, T, D), torch.randn(B, T, D)), torch.zeros(B, D)
    # all different in each feature: where two are equal the gradient may be shared in more than one right way
    a, b = (torch.rand(B, 2 * T, D).argsort(1) / T - 1).chunk(2, 1)
    return Diag(a.contiguous(), b.contiguous(), ring), torch.zeros(B, D)


def matrix(kind, decay, B, T, H, K):
    q, k, v = torch.randn(B, T, H, K) * K**-0.5, F.normalize(torch.randn(B, T, H, K), dim=-1), torch.randn(B, T, H, K)
    g = {"none": None, "head": -0.1 * torch.rand(B, T, H), "key": -0.1 * torch.rand(B, T, H, K)}[decay]
    if kind is LowRank:
        record = LowRank(q, k, v, -k, 0.5 * k, g)
    else:
        record = Outer(q, k, v, g) if kind is Outer else Delta(q, k, v, 0.5 * k, g)
    return record, torch.zeros(B, H, K, K)


def selective(B, T, D, N):
    step, rate = F.softplus(torch.randn(B, T, D) - 4), -torch.arange(1.0, N + 1).repeat(D, 1)
    record = Selective(torch.randn(B, T, D), step, rate, torch.randn(B, T, N), torch.randn(B, T, N))
    return record, torch.zeros(B, D, N)


def conv(B, T, D):
    return ShortConv(torch.randn(B, T, D), torch.randn(D, 4), torch.randn(D)), torch.zeros(B, 3, D)


def bandwidth(B, T, D):
    """The kernel into memory that is there, as torch.mul(a, b, out=c) has it; three arrays each."""
    record, state = diag_record(B, T, D)
    read, last = torch.empty(B, T, D), torch.empty(B, D)

    def kernel():
        fields = _fields(record.decay, record.drive, state, None, 0)
        native.call("diag", "forward", *fields, last, read, None, 0, torch.get_num_threads())
        return read

    def multiply():
        return torch.mul(record.decay, record.drive, out=read)

    return {"native": kernel, "torch.mul(out=)": multiply, "scan, new tensors": forward("native", record, state)}


# engine -> what, (record, state), the ratio to the chunk form that is asked for: forward, forward + backward
CASES = {
    "diag": [
        ("B8 T4096 D512", lambda: diag_record(8, 4096, 512), None, 3.0),
        ("min max B8 T4096 D512", lambda: diag_record(8, 4096, 512, MIN_MAX), None, None),
    ],
    "outer": [
        (f"{decay} decay B4 T2048 H8 K64", lambda decay=decay: matrix(Outer, decay, 4, 2048, 8, 64), 4.0, 4.0)
        for decay in ("none", "head", "key")
    ],
    "delta": [
        (f"{decay} decay B4 T2048 H8 K64", lambda decay=decay: matrix(Delta, decay, 4, 2048, 8, 64), 4.0, 4.0)
        for decay in ("none", "head", "key")
    ],
    "low rank": [
        (f"{decay} decay B4 T2048 H8 K64", lambda decay=decay: matrix(LowRank, decay, 4, 2048, 8, 64), 4.0, 4.0)
        for decay in ("none", "head", "key")
    ],
    "selective": [("B4 T2048 D512 N16", lambda: selective(4, 2048, 512, 16), None, None)],
    "conv": [("B4 T2048 D1024", lambda: conv(4, 2048, 1024), None, None)],
}
STEPS = {
    "diag": lambda: diag_record(1, 1, 512),
    "outer": lambda: matrix(Outer, "head", 1, 1, 8, 64),
    "delta": lambda: matrix(Delta, "head", 1, 1, 8, 64),
    "low rank": lambda: matrix(LowRank, "head", 1, 1, 8, 64),
    "selective": lambda: selective(1, 1, 512, 16),
    "conv": lambda: conv(1, 1, 1024),
}


def row(rows, title, seconds, peer, target=None):
    ratio = seconds[peer] / seconds["native"]
    verdict = "" if target is None else f"asked {target:g}: {'met' if ratio >= target else 'MISSED'}"
    times = "  ".join(f"{name} {1e3 * s:.3f} ms" for name, s in seconds.items())
    print(f"{title:58s} {ratio:7.2f} x  {verdict:18s} {times}", flush=True)
    rows.append({"case": title, "peer": peer, "ratio": ratio, "target": target, "seconds": seconds})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default=",".join(CASES))
    options = parser.parse_args()
    if reason := native.available():
        raise SystemExit(reason)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for engine in options.only.split(","):
        if engine == "diag":
            for B, T, D in ((8, 4096, 512), (1, 65536, 512), (1, 4096, 64), (1, 65536, 16)):
                title = f"diag forward, bandwidth B{B} T{T} D{D}"
                row(rows, title, race(bandwidth(B, T, D), options.rounds), "torch.mul(out=)", 0.8 if B == 8 else None)
        for what, make, *targets in CASES[engine]:
            record, state = make()
            both = ("forward", forward), ("forward + backward", train)
            for (part, how), target in zip(both, targets, strict=True):
                contenders = {name: how(name, record, state) for name in ("native", "chunk")}
                if not agree(contenders["native"](), contenders["chunk"]()):
                    print(f"{engine} {what} {part}: the numbers differ; no time is given")
                    continue
                row(rows, f"{engine} {part}, {what}", race(contenders, options.rounds), "chunk", target)
        record, state = STEPS[engine]()
        steps = {name: forward(name, record, state) for name in ("native", "loop")}
        row(rows, f"{engine} single step", race(steps, 50 * options.rounds), "loop")
    machine = {"torch": torch.__version__, "threads": options.threads, "machine": platform.machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
