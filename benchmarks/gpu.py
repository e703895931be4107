"""What the GPU's kernels give and what they are worth, on the GPU at hand.

    python -m benchmarks.gpu [--rounds N]

First every kernel is compared with the loop, in values, final state and all gradients, at the sizes where chunks begin
and end; one that is wrong gets no time. Then each runs in turn with its peers, again and again, and medians of the
device's own clock are compared: `diag` with a product of two arrays (as many bytes as memory can move), cells with
cuDNN, `outer` and `delta` with fla-core called directly and with our chunk form. Results go to
benchmarks/results/gpu-DEVICE.json. Without a GPU there is nothing to measure, and the exit code is 2.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys

import torch

from benchmarks.native import diag_record, floats, matrix
from recurra.clock import Clock
from recurra.ops import LOG_SUM, MAX_PLUS, MIN_MAX, Cell, Delta, Outer
from recurra.ops.cell import rules
from recurra.ops.scan import IMPLEMENTATIONS, name_of
from recurra.shapes import Tensor
from recurra.state import each

ROOT = pathlib.Path(__file__).parents[1]
LENGTHS = (1, 2, 31, 32, 33, 97, 300)
# what may be lost against float64, of the largest number: fla-core multiplies in TF32 and in bfloat16
ROOM = {"diag": 1e-9, "cell": 1e-9, "outer": 1e-2, "delta": 5e-2}


def moved(record, state, device, dtype=None):
    """The same record and state elsewhere, and in another type if one is given."""

    def move(x):
        if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
            return x.to(device) if isinstance(x, Tensor) else x
        kind = x.dtype if dtype is None else dtype.to_complex() if x.is_complex() else dtype
        return x.to(device, kind)

    return type(record)(*map(move, record)), each(move, state)


def implementation(record, name):
    return next(x for x in IMPLEMENTATIONS[type(record)] if name_of(x) == name)


def error(got, want):
    """The largest difference of any, relative to the largest number of each."""
    pairs = zip(got, want, strict=True)
    return max(float((x.to(y.dtype) - y).abs().max() / y.abs().max().clamp_min(1e-3)) for x, y in pairs)


def correctness(device, lengths=LENGTHS):
    """Engine -> the worst error of its kernels, over all records of it. Those that decline are named."""
    sys.path.insert(0, str(ROOT / "tests"))
    from ops.records import RECORDS
    from ops.test_engines import UNWRITTEN, _clock, _run

    cases = [(name.partition("-")[0], name, RECORDS[name]) for name in RECORDS if name.startswith(("diag", "cell"))]
    cases = [x for x in cases if x[1] not in UNWRITTEN]
    for kind, engine in ((Outer, "outer"), (Delta, "delta")):
        for decay in ("none", "head", "key"):
            make = lambda T, dtype, kind=kind, decay=decay: matrix(kind, decay, 2, T, 3, 64)  # noqa: E731
            cases.append((engine, f"{engine}-{decay}", make))
    worst: dict = {}
    for engine, name, make in cases:
        dtype = torch.float64 if engine in ("diag", "cell") else torch.float32
        for T in lengths:
            record, state = moved(*make(T, dtype), device)
            reset = _clock(T, T > 2).reset
            clock = Clock(None if reset is None else reset.to(device))
            exact = moved(record, state, device, torch.float64)
            # what the tests draw by themselves is drawn where the record lies
            with device:
                got = _run(implementation(record, "gpu"), record, state, clock)
                want = _run(implementation(record, "loop"), *exact, clock)
            if isinstance(got, str):
                print(f"{name} T {T}: declined: {got}", flush=True)
                continue
            worst[engine] = max(worst.get(engine, 0.0), error(got, want))
    return worst


def forward(scan, record, state):
    def run():
        with torch.no_grad():
            return scan(record, state)

    return run


def train(scan, record, state):
    wanted = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in record]
    record = type(record)(*wanted)
    grad = torch.ones_like(scan(record, state)[0])
    return lambda: torch.autograd.grad(scan(record, state)[0], floats(record), grad)


def race(contenders, rounds):
    """Median milliseconds of each, in turns, by the device's clock."""
    times = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, run in contenders.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            if turn > 1:  # the first compile and warm up
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(several) for name, several in times.items()}


def scans(record, *names):
    return {name: implementation(record, name).scan for name in names}


def cell(rule, B, T, N):
    """A record that cuDNN takes as well."""
    x, entering = torch.randn(B, T, N), torch.randn(rule.drive * N, N) * N**-0.5
    weight, bias = torch.randn(rule.recur, 1, N, N) * N**-0.5, torch.zeros(rule.drive * N)
    params = torch.zeros(rule.params, N) if rule.params else None
    record = Cell(rule, x, weight, params, input_weight=entering, bias=bias)
    return record, tuple(torch.zeros(B, N) for _ in range(rule.state))


def direct(record, state):
    """fla-core's own function for this decay, called as its users do, in bfloat16. Erasing is at half strength."""
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.gla import chunk_gla
    from fla.ops.kda import chunk_kda
    from fla.ops.simple_gla import chunk_simple_gla

    q, k, v = (x.bfloat16() for x in record[:3])
    g, shared = record.log_decay, {"scale": 1.0, "initial_state": state, "output_final_state": True}
    kind = 0 if g is None else g.ndim - 2
    if isinstance(record, Outer):
        return (chunk_simple_gla, chunk_simple_gla, chunk_gla)[kind](q, k, v, g=g, **shared)
    strength = torch.full(q.shape[:3], 0.5, dtype=q.dtype, device=q.device)
    if g is None:
        return chunk_delta_rule(q, k, v, strength, **shared)
    return (chunk_gated_delta_rule, chunk_kda)[kind - 1](q, k, v, g=g, beta=strength, **shared)


def cases(device):
    """Engine, title, record, state, and who runs it; the first is ours."""
    for ring in (None, MIN_MAX, MAX_PLUS, LOG_SUM):
        for B, T, D in ((8, 4096, 512), (1, 65536, 64)):
            record, state = moved(*diag_record(B, T, D, ring), device)
            title = f"diag {ring.name if ring else 'sum'} B{B} T{T} D{D}"
            yield "diag", title, record, state, scans(record, "gpu", "chunk")
    for rule in (rules.LSTM, rules.GRU_AFTER, rules.ELMAN_TANH):
        for B, N in ((16, 64), (64, 128), (64, 256)):
            record, state = moved(*cell(rule, B, 512, N), device)
            yield "cell", f"{rule.name} B{B} T512 N{N}, torch is cuDNN", record, state, scans(record, "gpu", "torch")
    for kind, engine in ((Outer, "outer"), (Delta, "delta")):
        for decay in ("none", "head", "key"):
            record, state = moved(*matrix(kind, decay, 4, 2048, 8, 64), device)
            contenders = scans(record, "gpu", "chunk") | {"fla-core": direct}
            yield engine, f"{engine} {decay} decay B4 T2048 H8 K64", record, state, contenders


def measure(device, rounds, wrong):
    """Rows of the table; nothing for an engine that is wrong, or that declines."""
    rows = []
    for engine, title, record, state, contenders in cases(device):
        torch.set_float32_matmul_precision("highest" if engine in ("diag", "cell") else "medium")
        reason = "its numbers are wrong" if engine in wrong else implementation(record, "gpu").declines(record, state)
        if reason is not None:
            print(f"{title}: not timed: {reason}", flush=True)
            continue
        for part, how in (("forward", forward), ("forward + backward", train)):
            ready = {name: how(scan, record, state) for name, scan in contenders.items()}
            if engine == "diag" and part == "forward":
                out = torch.empty_like(record.drive)
                ready["torch.mul"] = lambda record=record, out=out: torch.mul(record.decay, record.drive, out=out)
            times = race(ready, rounds)
            others = {name: t / times["gpu"] for name, t in times.items() if name != "gpu"}
            print(f"{title}, {part}: {times['gpu']:.3f} ms; " + ", ".join(f"{x:.2f} x {n}" for n, x in others.items()))
            rows.append({"case": title, "part": part, "milliseconds": times, "ratios": others})
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("there is no GPU that torch can use: this measures kernels that run on one", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    device, name = torch.device("cuda"), torch.cuda.get_device_name()
    torch.set_float32_matmul_precision("medium")
    errors = correctness(device)
    wrong = {engine for engine, worst in errors.items() if not worst <= ROOM[engine]}
    for engine, worst in errors.items():
        print(f"{engine}: largest error {worst:.1e}, {'WRONG' if engine in wrong else 'right'} (room {ROOM[engine]:g})")
    rows = measure(device, options.rounds, wrong)
    path = pathlib.Path(__file__).parent / "results" / f"gpu-{re.sub(r'[^A-Za-z0-9]+', '-', name).lower()}.json"
    path.parent.mkdir(exist_ok=True)
    result = {"device": name, "torch": torch.__version__, "errors": errors, "rows": rows}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
