"""Attention over spans in C against torch's with a mask: values, all gradients, spans of every kind, threads, types."""

from statistics import median

import pytest
import torch
from torch.testing import assert_close

from recurra import use
from recurra.ops import native as kernels
from recurra.ops.attention import attention, loop, native

pytestmark = pytest.mark.skipif(kernels.available() is not None, reason=str(kernels.available()))

# batch, queries, keys, heads, features of keys and of values: less than a vector, ragged, whole ones, many keys
SIZES = [(2, 37, 37, 3, 5, 7), (1, 16, 47, 2, 32, 16), (2, 60, 300, 1, 24, 40), (3, 8, 8, 4, 4, 4)]
SPANS = ("causal", "window", "own", "any")


def _spans(kind, batch, steps, length):
    """What queries see: all up to their own place, the last five, no other, and whatever chance says in every row."""
    last = torch.arange(length - steps, length)[None]
    if kind == "any":
        ends = torch.randint(length, (2, batch, steps))
        return ends.amin(0), ends.amax(0)
    return {"causal": torch.zeros_like(last), "window": (last - 4).clamp(min=0), "own": last}[kind], last


def _given(sizes, real, draw=0, ages=0):
    torch.manual_seed(draw)
    batch, steps, length, heads, size, wide = sizes
    # a part of a projection, read where it lies
    query = torch.randn(batch, steps, heads, 2 * size, dtype=torch.float64)[..., size:]
    key, value = (torch.randn(batch, length, heads, n, dtype=torch.float64) for n in (size, wide))
    # turned, as a product leaves it
    added = torch.randn(heads, batch, steps, ages, dtype=torch.float64).permute(1, 2, 0, 3) if ages else None
    return [None if x is None else x.to(real).requires_grad_() for x in (query, 2 * key, value, added)]


def _run(run, given, spans):
    *tensors, added = given
    y = run(*tensors, *spans, added)
    torch.manual_seed(9)
    asks = torch.randn((*y.shape[:-1], 2 * y.shape[-1]), dtype=torch.float64).to(y.dtype)[..., ::2]
    return [y.detach(), *torch.autograd.grad((y * asks).sum(), [x for x in given if x is not None])]


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("kind", SPANS)
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_equal_torchs(sizes, kind, added):
    spans = _spans(kind, *sizes[:3])
    given = _given(sizes, torch.float64, ages=added * int((spans[1] - spans[0]).max() + 1))
    for x, y in zip(_run(native.run, given, spans), _run(loop.run, given, spans), strict=True):
        assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SPANS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_at_most_twice_torchs(real, sizes, kind):
    """By medians of five draws: the largest of a few errors is chance."""
    spans = _spans(kind, *sizes[:3])
    ages = int((spans[1] - spans[0]).max() + 1)
    draws = [_errors(_given(sizes, real, draw, ages), spans) for draw in range(5)]
    for several in zip(*draws, strict=True):
        off, theirs, size = map(median, zip(*several, strict=True))
        assert off <= 2 * theirs + torch.finfo(real).eps * max(1, size)


def _errors(given, spans):
    """Of the read and of each gradient: how far off it is, how far torch's is, and how large it is."""
    truth = _run(loop.run, [None if x is None else x.detach().double().requires_grad_() for x in given], spans)
    both = zip(_run(native.run, given, spans), _run(loop.run, given, spans), truth, strict=True)
    return [tuple(float(x.abs().max()) for x in (mine - want, theirs - want, want)) for mine, theirs, want in both]


def test_large_scores_neither_overflow_nor_vanish():
    """The first keys, a block of them and more, score far below the last, and the other way round."""
    query = torch.ones(1, 16, 1, 1, dtype=torch.float64, requires_grad=True)
    for order in (1, -1):
        key = (torch.arange(300, dtype=torch.float64) * order * 3).view(1, 300, 1, 1).requires_grad_()
        value = torch.randn(1, 300, 1, 4, dtype=torch.float64, requires_grad=True)
        spans = _spans("causal", 1, 16, 300)
        for x, y in zip(*(_run(run, (query, key, value, None), spans) for run in (native.run, loop.run)), strict=True):
            assert_close(x, y)


def test_narrow_queries_see_wide_keys_as_they_are():
    query, key, value, _ = _given(SIZES[0], torch.float32)
    narrow, spans = query.detach().bfloat16(), _spans("causal", *SIZES[0][:3])
    read = attention(narrow, key, value, *spans)
    assert read.dtype == torch.bfloat16
    assert torch.equal(read, attention(narrow.float(), key, value, *spans).bfloat16())


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    given = [torch.randn(5, 100, 3, n, requires_grad=True) for n in (32, 32, 32, 5)]
    spans, before, results = _spans("window", 5, 100, 100), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_run(native.run, given, spans))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_what_no_kernel_takes_is_left_to_torch():
    given, spans = _given(SIZES[0], torch.float32)[:3], _spans("causal", *SIZES[0][:3])
    assert native.declines(*given) is None
    few = given[0][:, :3], *given[1:]
    assert "fewer than" in (native.declines(*few) or "")
    last = torch.arange(34, 37)[None]
    assert_close(attention(*few, last - 9, last), loop.run(*few, last - 9, last))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "autocast" in (native.declines(*given) or "")
    with use("loop"):
        assert torch.equal(attention(*given, *spans), loop.run(*given, *spans))


# torch's own, of what it has no rule to batch
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transforms_of_torch_are_left_to_torch():
    query, key, value = (x.detach() for x in _given(SIZES[3], torch.float32)[:3])
    spans = _spans("causal", *SIZES[3][:3])
    want = loop.run(query, key, value, *spans)
    assert_close(torch.vmap(lambda part: attention(part, key, value, *spans))(torch.stack([query] * 2))[1], want)
    _, back = torch.func.vjp(lambda part: attention(query, key, part, *spans), value)
    leaf = value.clone().requires_grad_()
    assert_close(back(want)[0], torch.autograd.grad(attention(query, key, leaf, *spans), leaf, want)[0])


def test_an_operator_gives_the_kernels_bits(monkeypatch):
    given, spans = _given(SIZES[1], torch.float32), _spans("causal", *SIZES[1][:3])
    want = _run(native.run, given, spans)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert all(torch.equal(x, y) for x, y in zip(_run(native.run, given, spans), want, strict=True))
