"""One layer in a process of its own, that runs once when it is told to.

So contenders run in turn and a busy machine slows all of them; the memory that one takes is its own; and one that
runs out of memory, of time or of its mind ends its process and nothing else. Memory is what the kernel counts: how far
the peak of resident memory rises above where it stood before the first run at full size (everything else, from
imports to compiled kernels, is warmed by a short run before).
"""

import copy
import itertools
import multiprocessing
import os
import pathlib
import resource
import signal
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from benchmarks.peers import BASELINE, PEERS, Layer, keep_out
from benchmarks.sizes import Size
from recurra import MIXERS, use
from recurra.mixers import Mixer
from recurra.shapes import Tensor

OURS = "recurra"
WARM = 64  # steps of the short run
STEP_SECONDS = 0.02  # single steps are counted in as many as fill this
SETTLING, QUICK = 4, 0.3  # runs before the first that counts, of whoever takes fewer seconds for one
CHECKED = 130  # steps at which numbers are compared: more than two chunks, and no whole number of them
DRAWS = 5  # of inputs, and of what is asked of the outputs
EPS = 1e-5  # of the largest number
START_SECONDS = 240.0  # for a package that compiles itself as it is imported


class Failed(Exception):
    """There is no number, and why."""


class Contender(NamedTuple):
    """Who runs what: `label` is ours, the baseline's, or the name of one of the mixer's peers."""

    mixer: str
    label: str
    size: Size
    threads: int

    def build(self) -> Layer:
        mixer = MIXERS[self.mixer](self.size.width)
        if self.label == OURS:
            return Layer(mixer, lambda x: mixer(x)[0], mixer)
        peer = next(x for x in (BASELINE, *PEERS.get(self.mixer, ())) if x.name == self.label)
        return peer.build(self.size.width, self.size.steps, mixer.config)


class Workbench:
    """What a contender can be asked."""

    def __init__(self, contender: Contender) -> None:
        torch.set_num_threads(contender.threads)
        torch.manual_seed(0)
        self.contender = contender
        self.layer = contender.build()
        B, T, D = contender.size
        self.x = torch.randn(B, T, D, requires_grad=True)
        self.grad = torch.ones(B, T, D)
        self.wanted = [self.x, *(p for p in self.layer.module.parameters() if p.requires_grad)]
        self._both(min(WARM, T))

    def first(self) -> tuple[float, int]:
        """Seconds of the first forward and backward at full size, and by how many bytes the peak of memory rose.

        Raises:
            Failed: a number is not finite.
        """
        before = _resident("VmRSS")
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        start = time.perf_counter()
        y, grads = self._both(self.contender.size.steps)
        seconds = time.perf_counter() - start
        peak = _resident("VmHWM") - before
        if not all(bool(torch.isfinite(g).all()) for g in (y, *grads)):
            raise Failed("its numbers are not finite")
        # a process pays for its memory until nothing more is asked of the system, and others' few runs are as warm
        for _ in range(SETTLING if seconds < QUICK else 0):
            self._both(self.contender.size.steps)
        return seconds, peak

    def train(self) -> float:
        """Seconds of a forward and a backward, to the input and every parameter."""
        start = time.perf_counter()
        self._both(self.contender.size.steps)
        return time.perf_counter() - start

    @torch.no_grad()
    def forward(self) -> float:
        """Seconds of a forward."""
        start = time.perf_counter()
        self.layer.sequence(self.x)
        return time.perf_counter() - start

    @torch.no_grad()
    def step(self) -> float:
        """Seconds of a single step of one row.

        Raises:
            Failed: the layer has none.
        """
        if self.layer.step is None:
            raise Failed("it has no single step")
        x, state = self.x[:1, :1].detach(), None
        for _ in range(3):
            _, state = self.layer.step(x, state)
        steps, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < STEP_SECONDS or steps < 3:
            _, state = self.layer.step(x, state)
            steps += 1
        return spent / steps

    @torch.no_grad()
    def grow(self, lengths: Iterable[int], seconds: float) -> dict[int, list[float]]:
        """Seconds a token of forwards of one row at rising lengths, again and again while time lasts.

        A length that would take longer than all the time there is ends the list.
        """
        lengths, began = list(lengths), time.perf_counter()
        cost: dict[int, list[float]] = {}
        while True:
            for T in list(lengths):
                known = cost.get(T) or cost.get(T // 2)
                if known and known[-1] * T > seconds:
                    lengths = lengths[: lengths.index(T)]
                    break
                x, times = torch.randn(1, T, self.contender.size.width), max(1, 16384 // T)
                if T not in cost:
                    self.layer.sequence(x)
                start = time.perf_counter()
                for _ in range(times):
                    self.layer.sequence(x)
                cost.setdefault(T, []).append((time.perf_counter() - start) / times / T)
            spent = time.perf_counter() - began
            passes = len(cost[min(cost)])
            if passes >= 9 or spent + spent / passes > seconds:
                return cost

    def red(self) -> str | None:
        """Why the mixer's numbers are wrong, None where they are right."""
        module = self.layer.module
        assert isinstance(module, Mixer)
        return red(module, self.contender.size.width)

    def _both(self, steps: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.x if steps == self.contender.size.steps else self.x[:, :steps]
        y = self.layer.sequence(x)
        grads = torch.autograd.grad(y, self.wanted, self.grad[:, :steps], allow_unused=True)
        return y.detach(), tuple(g for g in grads if g is not None)


def red(mixer: Mixer, width: int) -> str | None:
    """Why a mixer's numbers are wrong: what runs, whole and cut in two, against the loop; None where they are right.

    The outputs, the gradient of the input and those of all parameters are compared with the loop's in float64; an error
    may be twice that of the loop in float32. Both are medians of some draws. One draw would not do: where a gradient is
    of three numbers, how far the loop is off it is chance; and where a function has a kink, as a relu has, rounding
    alone now and then puts a number on its other side, with another gradient. What is wrong is wrong in every draw.
    """
    exact = copy.deepcopy(mixer).double()
    loops, scales = defaultdict[str, list[float]](list), defaultdict[str, float](float)
    errors = defaultdict[tuple[str, str], list[float]](list)
    for _ in range(DRAWS):
        x, weight = torch.randn(2, CHECKED, width), torch.randn(2, CHECKED, width)
        truth, loop = _by_loop(exact, x.double(), weight.double()), _by_loop(mixer, x, weight)
        for name, true in truth.items():
            loops[name].append(_error(loop[name], true))
            scales[name] = max(scales[name], float(true.abs().max()))
        for what, cuts in {"whole": (0, CHECKED), "cut in two": (0, CHECKED // 2, CHECKED)}.items():
            for name, number in _numbers(mixer, x, weight, cuts).items():
                if not bool(torch.isfinite(number).all()):
                    return f"{name}, {what}, is not finite"
                errors[name, what].append(_error(number, truth[name]))
    for (name, what), off in errors.items():
        error, allowed = statistics.median(off), 2 * statistics.median(loops[name]) + EPS * scales[name]
        if not error <= allowed:
            return f"{name}, {what}, is off the loop by {error:.2g}, more than {allowed:.2g}"
    return None


def _by_loop(mixer: Mixer, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """As `_numbers`, by the loop, and each row by itself: what it keeps of all steps is as large as a state is."""
    with use("loop"):
        rows = [_numbers(mixer, *row, (0, CHECKED)) for row in zip(x.split(1), weight.split(1), strict=True)]
    found = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    shared = {f"the gradient of {name}" for name, _ in mixer.named_parameters()}
    return {name: each.sum(0) if name in shared else each.flatten(0, 1) for name, each in found.items()}


def _numbers(mixer: Mixer, x: Tensor, weight: Tensor, cuts: tuple[int, ...]) -> dict[str, Tensor]:
    """Outputs and gradients over the pieces between cuts."""
    x, state, pieces = x.clone().requires_grad_(), None, []
    for start, stop in itertools.pairwise(cuts):
        y, state = mixer(x[:, start:stop], state)
        pieces.append(y)
    y = torch.cat(pieces, 1)
    named = {"the gradient of x": x, **{f"the gradient of {n}": p for n, p in mixer.named_parameters()}}
    grads = torch.autograd.grad((y * weight).sum(), list(named.values()), allow_unused=True)
    return {"the output": y.detach()} | {n: g for n, g in zip(named, grads, strict=True) if g is not None}


def _error(number: Tensor, truth: Tensor) -> float:
    return float((number.double() - truth).abs().max())


def _resident(field: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most since the count was cleared (VmHWM)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def _limit_memory() -> None:
    """Half of the machine's, so that what takes more fails here and not everywhere."""
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    resource.setrlimit(resource.RLIMIT_DATA, (half, half))


def serve(pipe: Connection, contender: Contender) -> None:
    """Build a contender and answer until there is no one to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    keep_out()
    _limit_memory()
    try:
        bench = Workbench(contender)
        pipe.send((True, None))
        while True:
            method, arguments = pipe.recv()
            try:
                pipe.send((True, getattr(bench, method)(*arguments)))
            except Failed as reason:
                pipe.send((False, str(reason)))
    except EOFError:
        return
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        memory = isinstance(error, MemoryError) or "memory" in said[0]
        pipe.send((False, "out of memory" if memory else f"{type(error).__name__}: {said[0][:150]}"))
    sys.exit()


class Worker:
    """A contender's process, from outside.

    Raises:
        Failed: it cannot be built.
    """

    def __init__(self, contender: Contender) -> None:
        context = multiprocessing.get_context("forkserver")
        # imported once, before any thread is started; every contender is a fork of that
        context.set_forkserver_preload(["benchmarks.contender"])
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, contender), daemon=True)
        self.process.start()
        theirs.close()
        self._answer(START_SECONDS)

    def ask(self, method: str, *arguments: Any, limit: float = START_SECONDS) -> Any:
        """The answer of one of Workbench's methods.

        Raises:
            Failed: there was none within `limit` seconds, or it was a reason.
        """
        try:
            self.pipe.send((method, arguments))
        except OSError as error:
            raise Failed("its process has ended") from error
        return self._answer(limit)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _answer(self, limit: float) -> Any:
        if not self.pipe.poll(limit):
            self.process.kill()
            raise Failed(f"not finished in {limit:.0f} s")
        try:
            fine, value = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join(5)
            raise Failed(f"its process ended with code {self.process.exitcode}") from error
        if not fine:
            raise Failed(value)
        return value
