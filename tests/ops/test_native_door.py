"""How kernels are built, kept, and had where things are in the way; and what torch.compile makes of them."""

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from forked import Popen

from recurra.ops import native

needs_compiler = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))

COMPILED = """
    import torch, recurra
    from recurra.mixers import MIXERS
    from recurra.models import LanguageModel
    from recurra.ops import native
    calls, call = set(), native.call
    native.call = lambda *arguments: calls.add((arguments[0].split("-")[0], arguments[1])) or call(*arguments)
    clock = recurra.Clock(reset=torch.rand(2, 20) < 0.2)
    def run(forward, x, inputs):
        read, _ = forward(x, None, clock)
        return read, *torch.autograd.grad(read.square().sum(), inputs)
    def compare(module, x, inputs, *engines, backend="aot_eager"):
        want = run(module, x, inputs)
        calls.clear()
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        for got, exact in zip(run(compiled, x, inputs), want, strict=True):
            torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6 * max(1, float(exact.detach().abs().max())))
        print(calls == {(engine, way) for engine in engines for way in ("forward", "backward")})
    # one graph, whatever the engines
    for pattern, *engines in (
        ("gla,deltanet,rwkv7,mamba,mingru,lstm", "outer", "delta", "low_rank", "selective", "conv", "diag", "cell"),
        ("liquid_s4,ltc,fast_weights_rnn,lmu,ntm,dnc", "liquid", "synapse", "settle", "projection", "tape", "linked"),
    ):
        model = LanguageModel(vocabulary=11, width=16, depth=6, pattern=pattern, hidden=0)
        compare(model, torch.randint(11, (2, 20)), tuple(model.parameters()), *engines)
    x = torch.randn(2, 20, 16, requires_grad=True)
    compare(MIXERS["mamba"](16), x, (x,), "conv", "selective", backend="inductor")
    mixer = MIXERS["lru"](16)
    compare(mixer, x, (x,), "diag")
    # what is asked for is heard by what is compiled already
    calls.clear()
    with recurra.use("loop"):
        torch.compile(mixer, backend="aot_eager")(x, None, clock)
    print(not calls)
"""


@needs_compiler
def test_what_is_compiled_runs_the_kernels_and_gives_the_same():
    """In a process of its own: the compiler cannot see through checks of shapes."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMPILED)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 5


SCRIPT = """
    import logging, sys, torch
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout, level=logging.INFO)
    from recurra.ops import Outer, Scan, ShortConv, native
    from recurra.ops.scan import choose, name_of
    scan, state = Scan(), torch.zeros(1, 1, 3)
    for _ in range(2):
        record = ShortConv(torch.ones(1, 4, 3), torch.full((3, 2), 0.5), silu=False)
        read, last = scan(record, state)
        assert read[0].tolist() == [[0.5] * 3] + [[1.0] * 3] * 3, read
        if len(sys.argv) > 1:
            x = torch.ones(1, 4, 2, 3)
            read, last = scan(Outer(x, x, x), torch.zeros(1, 2, 3, 3))
            assert torch.allclose(last, torch.full((1, 2, 3, 3), 4.0)), last
    print("ran", name_of(choose(record, state)), native.available())
"""


def _start(*arguments, **environment):
    """The script in a process of its own; with an argument it runs a second engine too."""
    own = {k: v for k, v in os.environ.items() if k not in ("CC", "RECURRA_CACHE", "XDG_CACHE_HOME")}
    return Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        env={**own, **{k: str(v) for k, v in environment.items()}}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _lines(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.splitlines()


@needs_compiler
def test_two_processes_compile_at_once_into_an_empty_cache(tmp_path):
    both = [_start(RECURRA_CACHE=tmp_path / "new") for _ in range(2)]
    for process in both:
        assert _lines(process) == ["ran native None"]
    assert [x.name.split("-")[0] for x in (tmp_path / "new").iterdir()] == ["conv"], "one library, nothing left over"
    assert _lines(_start(RECURRA_CACHE=tmp_path / "new")) == ["ran native None"]


def test_without_a_compiler_everything_runs_and_one_line_says_so(tmp_path):
    lines = _lines(_start("both", CC="/nonexistent/cc", RECURRA_CACHE=tmp_path))
    assert len(lines) == 2 and lines[0].startswith("WARNING no C compiler (/nonexistent/cc)")
    assert not lines[1].startswith("ran native") and "name one in CC" in lines[1]


def test_a_compiler_that_fails_is_named_once(tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho "error: no disk" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    lines = _lines(_start("both", CC=broken, RECURRA_CACHE=tmp_path / "cache"))
    assert [x.startswith("WARNING") for x in lines] == [True, True, False]
    assert all("could not compile" in x and "error: no disk" in x for x in lines[:2])
    assert not lines[2].startswith("ran native")
    assert not list((tmp_path / "cache").iterdir())


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    lines = _lines(_start(RECURRA_CACHE=tmp_path / "file" / "cache"))
    assert len(lines) == 2 and lines[0].startswith("WARNING compiled kernels cannot be kept")
    assert lines[1] == "ran native None"


@needs_compiler
def test_a_damaged_library_is_declined_by_name(tmp_path):
    assert _lines(_start(XDG_CACHE_HOME=tmp_path)) == ["ran native None"]
    (library,) = (tmp_path / "recurra").iterdir()
    library.write_bytes(b"not a library")
    lines = _lines(_start(XDG_CACHE_HOME=tmp_path))
    assert "cannot be loaded" in lines[0] and str(library) in lines[0]
    assert not lines[1].startswith("ran native")


def test_what_is_included_is_part_of_a_librarys_name():
    def included(name):
        found = set(re.findall(r'#include "(.+)"', (native.HERE / name).read_text()))
        return found.union(*map(included, found))

    engines = [path.name for path in native.HERE.glob("*.c")]
    assert set().union(*map(included, engines)) == set(native.HEADERS)
    assert included("cell.h") | {"cell.h"} == set(native.CELL_HEADERS)


def test_a_library_that_two_threads_want_is_made_once(monkeypatch):
    made = []

    def load(engine, real):
        made.append(engine)
        time.sleep(0.05)
        raise native.Missing("nothing here")

    monkeypatch.setattr(native, "_load", load)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: native.library_of("wanted_twice", "float"), range(2))) == {"nothing here"}
    assert made == ["wanted_twice"]


def test_what_stops_the_work_stops_what_is_made_ahead_of_it(monkeypatch):
    made, begun, go = [], threading.Event(), threading.Event()

    def make(engine, real):
        made.append((engine, real))
        begun.set()
        go.wait(10)

    monkeypatch.setattr(native, "_made", make)
    with pytest.raises(KeyboardInterrupt), native.ahead():
        assert begun.wait(10)
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt
    assert len(made) == 1


def test_every_kernel_that_lies_in_a_file_is_made_ahead(monkeypatch):
    made, done = set(), threading.Event()

    def make(engine, real):
        made.add((engine, real))
        if ("waves", "float") in made:
            done.set()

    monkeypatch.setattr(native, "_made", make)
    with native.ahead():
        assert done.wait(10)
    assert {(x.stem, "float") for x in native.HERE.glob("*.c")} <= made


def test_a_user_without_a_home_is_told_where_to_say_one(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("RECURRA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(native.pathlib.Path, "home", home)
    assert native._made.__wrapped__("outer", "float").endswith("set RECURRA_CACHE")
