"""The GPU's kernels as far as they can be known without one: what they give in Triton's interpreter (interpreted.py, in
a process of its own), that they compile for a GPU, what they say where they cannot run, and the translation of records
for fla-core's kernels against numbers of its naive functions (oracles/make_gpu_fla.py)."""

import itertools
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from ops.records import RECORDS
from oracles.stored import numbers

from benchmarks import gpu as benchmark
from recurra.ops import Delta, LowRank, Outer, gpu
from recurra.ops.cell import gpu as cell_gpu
from recurra.ops.delta import gpu as delta_gpu, loop as delta_loop
from recurra.ops.diag import gpu as diag_gpu
from recurra.ops.outer import gpu as outer_gpu, loop as outer_loop

needs_triton = pytest.mark.skipif(not gpu.installed("triton"), reason="triton is not installed: it is for Linux only")


def _python(*arguments, **environment):
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=os.environ | environment, cwd=root
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@needs_triton
def test_in_the_interpreter():
    _python("-m", "pytest", "-q", "-x", "tests/ops/interpreted.py", TRITON_INTERPRET="1")


def test_triton_is_imported_by_no_one_who_does_not_run_it():
    _python("-c", """if True:
        import sys, torch
        from recurra.ops import Diag, Outer
        from recurra.ops.scan import IMPLEMENTATIONS, choose
        x = torch.ones(1, 2, 1, 4)
        for record, state in ((Diag(x, x), x[:, 0]), (Outer(x, x, x), torch.zeros(1, 1, 4, 4))):
            assert any("GPU" in (i.declines(record, state) or "") for i in IMPLEMENTATIONS[type(record)])
            choose(record, state)
        assert not {"triton", "fla"} & sys.modules.keys()
    """, TRITON_INTERPRET="0")  # fmt: skip


@pytest.mark.parametrize("name", ["diag", "outer-key-decay", "delta-head-decay", "low-rank-key-decay", "cell-lstm"])
def test_they_decline_a_cpu_and_say_why(name):
    record, state = RECORDS[name](3, torch.float32)
    module = {"diag": diag_gpu, "outer": outer_gpu, "cell": cell_gpu}.get(name.partition("-")[0], delta_gpu)
    assert module.declines(record, state) == "the kernels run on a GPU, not on cpu"


def test_without_triton_they_say_what_to_install(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "installed", lambda package: False)
    record, state = RECORDS["diag"](3, torch.float32)
    assert diag_gpu.declines(record, state) == "triton is not installed: pip install 'recurra[gpu]'"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the benchmark would run")
def test_the_benchmark_says_that_there_is_no_gpu(capsys):
    assert benchmark.main([]) == 2
    assert capsys.readouterr().err.startswith("there is no GPU that torch can use")


@needs_triton
@pytest.mark.parametrize("name", ["cell-own", "cell-project"])
def test_cell_declines_what_has_no_kernel(name, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    record, state = RECORDS[name](3, torch.float32)
    assert cell_gpu.declines(record, state) in ("the rule own makes its own products", "no kernel projects the state")


@needs_triton
def test_cell_declines_a_large_product(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    record, _ = RECORDS["cell-dense"](3, torch.float32)
    weight, params = torch.zeros(2, 1, 512, 512), torch.zeros(1, 512)
    record = record._replace(drive=torch.zeros(2, 3, 1024), weight=weight, params=params)
    assert "512 units a head" in cell_gpu.declines(record, (torch.zeros(2, 512),) * 2)


def _compiles(function, **constants):
    """Compile for the GPU of 2022; a machine needs none to do it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    whole = {"steps", "features", "chunks", "length", "rows", "heads", "d", "N"}
    special = {name: "i32" for name in whole} | {"reset": "*u8", "valid": "*u8", "began": "*i32"}
    signature = {x: "constexpr" if x in constants else special.get(x, "*fp32") for x in function.arg_names}
    source = ASTSource(function, signature, constexprs=constants, attrs={})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    # what the smallest GPUs of those years have
    assert made.metadata.shared <= 99 << 10


@needs_triton
@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize("kind", [diag_gpu.COMPLEX, *diag_gpu.RINGS.values()])
def test_diag_compiles(kind, summary, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forward, backward = diag_gpu._kernels()
    shared = {"KIND": kind, "START": 0.0, "CONSTANT": False, "RESETS": True, "SUMMARY": summary, "BLOCK": 128}
    _compiles(forward, ZERO=0.0, ONE=1.0, **shared)
    _compiles(backward, **shared)


@needs_triton
@pytest.mark.parametrize("name", ["cell-dense", "cell-diagonal"])
def test_cell_compiles(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    record, state = RECORDS[name](2, torch.float32)
    forward, backward = cell_gpu._compiled(record.rule)
    weight = record.weight if name == "cell-dense" else None
    constants = cell_gpu._launch(record.drive, weight, None, None, state[0].shape[1]).constants | {"RESETS": True}
    _compiles(forward, KEEP=True, **constants)
    _compiles(backward, **constants)


# ---- fla-core: a record becomes what its kernels are called with, and those mean what the loop means ----


def _translated(name, record, state, translated, loop):
    _, stored = numbers("gpu_fla", f"{name}.")
    for key, x in translated.items():
        if key != "scale":
            torch.testing.assert_close(x, stored[key], rtol=1e-13, atol=1e-13)
    assert translated["scale"] == 1
    read, last = loop.scan(record, state)
    torch.testing.assert_close(read, stored["read"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, stored["last"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", ["simple_gla", "gla", "rwkv6"])
def test_outer_is_what_fla_computes(kernel):
    _, s = numbers("gpu_fla", f"{kernel}.")
    before = kernel == "rwkv6"
    record = Outer(s["r" if before else "q"], s["k"], s["v"], s["w" if before else "g"], before, s.get("u"))
    name, inputs = outer_gpu.translate(record)
    assert name == kernel
    _translated(kernel, record, s["first"], inputs, outer_loop)


def test_low_rank_is_what_fla_computes():
    _, s = numbers("gpu_fla", "dplr.")
    record = LowRank(s["q"], s["k"], s["v"], s["a"], s["b"], s["gk"])
    _translated("dplr", record, s["first"], delta_gpu.translate(record), delta_loop)


@pytest.mark.parametrize("name", ["delta-no-decay", "delta-head-decay", "delta-key-decay"])
def test_delta_is_a_low_rank(name):
    record, state = RECORDS[name](9, torch.float64)
    x = delta_gpu.translate(record)
    low = LowRank(x["q"], x["k"], x["v"], x["a"], x["b"], x["gk"])
    for got, want in zip(delta_loop.scan(low, state), delta_loop.scan(record, state), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["outer-no-decay", "outer-before-head", "outer-bonus-no-decay"])
def test_outer_without_a_part_has_it_neutral(name):
    record, state = RECORDS[name](9, torch.float64)
    kernel, x = outer_gpu.translate(record)
    again = Outer(x["r" if record.before else "q"], x["k"], x["v"], x.get("w", x.get("g")), record.before, x.get("u"))
    assert kernel == ("rwkv6" if record.before else "simple_gla")
    for got, want in zip(outer_loop.scan(again, state), outer_loop.scan(record, state), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_resets_become_sequences_of_one_row(first):
    """A function with fla-core's convention (batch 1, cu_seqlens, one state a sequence), made of the loop."""
    record, state = RECORDS["outer-bonus-no-decay"](9, torch.float64)
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, [0, 4, 5]] = torch.tensor([first, True, True])

    def run(r, k, v, w, u, scale, initial_state, output_final_state, cu_seqlens=None):
        assert r.shape[0] == 1 and output_final_state and len(initial_state) == len(cu_seqlens) - 1
        results = []
        for i, (a, b) in enumerate(itertools.pairwise(cu_seqlens)):
            piece = Outer(r[:, a:b], k[:, a:b], v[:, a:b], w[:, a:b], True, u)
            results.append(outer_loop.scan(piece, initial_state[i : i + 1]))
        reads, lasts = zip(*results, strict=True)
        return torch.cat(reads, 1), torch.cat(lasts)

    got = gpu.packed(run, reset, state, outer_gpu.translate(record)[1])
    want = outer_loop.scan(record._replace(reset=reset), state)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_fla_is_asked_only_for_what_it_computes_as_exactly(monkeypatch):
    """The reasons, in the order in which they are found, as if there were a GPU and fla-core."""
    monkeypatch.setattr(gpu, "declines", lambda *tensors: None)
    x, state = torch.zeros(1, 4, 1, 16), torch.zeros(1, 1, 16, 16)
    monkeypatch.setattr(gpu, "installed", lambda package: False)
    assert "not installed" in outer_gpu.declines(Outer(x, x, x), state)
    monkeypatch.setattr(gpu, "installed", lambda package: True)
    assert "float64" in outer_gpu.declines(Outer(*(x.double(),) * 3), state.double())
    assert "single step" in outer_gpu.declines(Outer(*(x[:, :1],) * 3), state)
    assert "channels" in outer_gpu.declines(Outer(*(x[..., :4],) * 3), state[..., :4, :4])
    assert "TF32" in outer_gpu.declines(Outer(x, x, x), state)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert outer_gpu.declines(Outer(x, x, x), state) is None
    assert "finite" in outer_gpu.declines(Outer(x, x, x, x[..., 0] - torch.inf), state)
    assert "bfloat16" in delta_gpu.declines(Delta(x, x, x, x), state)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert delta_gpu.declines(Delta(x, x, x, x, x - 5), state) is None
    assert "overflows" in delta_gpu.declines(Delta(x, x, x, x, x - 6), state)
