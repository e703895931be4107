"""Every implementation of every engine against its loop, and the loops against their own derivatives."""

import functools
import itertools
from statistics import median

import pytest
import torch
from ops.records import RECORDS, B

from recurra.clock import Clock
from recurra.ops.scan import IMPLEMENTATIONS, Scan, name_of, prepare
from recurra.shapes import Tensor
from recurra.state import each, leaves

LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 97)
CASES = [*itertools.product(("plain", "both"), LENGTHS), ("reset", 1), ("valid", 1), ("reset", 97), ("valid", 97)]

# What torch has fused functions for. Every other implementation must run every record of its kind.
FUSED = ("cell-lstm", "cell-lstm-project", "cell-gru", "cell-elman-tanh", "cell-elman-relu")
# Products of the rule's own, and a projected state, have no kernel.
SIDE_BY_SIDE = ("cell-diagonal", "cell-none")  # whose units do not mix, for Newton's method
UNWRITTEN = ("cell-own", "cell-gru-before", "cell-project", "cell-lstm-project", "projection")


def _pairs():
    for name, make in RECORDS.items():
        record, _ = make(3, torch.float64)
        for implementation in IMPLEMENTATIONS[type(record)][:-1]:
            # a Fourier transform knows neither resets nor changing decays: test_fft.py; kernels for a GPU: test_gpu.py
            if name_of(implementation) in ("fft", "gpu") or (name_of(implementation) == "torch" and name not in FUSED):
                continue
            if name_of(implementation) == "newton" and name not in SIDE_BY_SIDE:
                continue
            if name_of(implementation) == "native" and name in UNWRITTEN:
                continue
            yield pytest.param(name, implementation, id=f"{name}-{name_of(implementation)}")


PAIRS = list(_pairs())


def _clock(T, reset=False, valid=False):
    r = torch.rand(B, T) < 0.2 if reset else None
    if reset and T > 4:
        r[:, 1:3] = True  # twice in a row
    return Clock(r, torch.arange(T)[None] < torch.tensor([[T], [T - T // 3]]) if valid else None)


def _run(implementation, record, state, clock):
    """Read, final state and the gradients of both, with respect to every float in the record and the state."""
    leaf = [x.detach().clone().requires_grad_() if _float(x) else x for x in record]
    record = type(record)(*leaf)
    state = each(lambda x: x.detach().clone().requires_grad_(), state)
    wanted = [*(x for x in leaf if _float(x)), *leaves(state)]
    ready, start = prepare(record, state, clock)
    reason = implementation.declines(ready, start)
    if reason is not None:
        return reason
    read, final = implementation.scan(ready, start)
    torch.manual_seed(7)
    total = sum((x * _weight(x)).sum() for x in (read, *leaves(final)))
    total = total.real if total.is_complex() else total
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    zeros = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]
    return [read.detach(), *(x.detach() for x in leaves(final)), *zeros]


def _weight(x):
    """Random numbers that are the same in every precision and memory layout."""
    return torch.randn(x.shape, dtype=torch.complex128 if x.is_complex() else torch.float64).to(x.dtype)


def _float(x):
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


@functools.lru_cache(2 * len(LENGTHS))
def _loops(name, T, when):
    """A record, its state, a clock, and what the loop makes of them: once for all other implementations."""
    record, state = RECORDS[name](T, torch.float64)
    clock = _clock(T, when in ("reset", "both"), when in ("valid", "both"))
    return record, state, clock, _run(IMPLEMENTATIONS[type(record)][-1], record, state, clock)


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
@pytest.mark.parametrize(("when", "T"), CASES)
def test_values_and_gradients_equal_the_loops_in_float64(name, implementation, T, when):
    """No masks and both of them at every length. One mask alone is another way through the code but not another place
    where chunks end: one length with whole chunks and a rest shows it."""
    record, state, clock, want = _loops(name, T, when)
    got = _run(implementation, record, state, clock)
    if isinstance(got, str):
        # a decline is an answer, but not for a sequence of many plain steps
        assert T == 1 or when != "plain", f"{name_of(implementation)} declines {name} at T = {T}: {got}"
        return
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
def test_float32_error_is_at_most_twice_the_loops(name, implementation):
    """By medians: the largest of a few errors is chance, the loop's too. Five draws mostly tell, else many do."""
    draws = _errors_in_float32(name, implementation)
    errors = list(itertools.islice(draws, 5))
    if _off(errors):
        errors += itertools.islice(draws, 20)
    assert not _off(errors)


def _errors_in_float32(name, implementation):
    """For one draw after another: of each result its largest error, the loop's, and how large it is; or nothing."""
    for draw in itertools.count():
        record, state, clock, want, theirs = _loops_in_float32(name, draw)
        got = _run(implementation, record, state, clock)
        if isinstance(got, str):
            return
        yield [(_largest(x - y), _largest(z - y), _largest(y)) for x, y, z in zip(got, want, theirs, strict=True)]


@functools.lru_cache(5)
def _loops_in_float32(name, draw):
    """A record in float32, and what the loop makes of it in float64 and in float32: once for all implementations."""
    loop = IMPLEMENTATIONS[type(RECORDS[name](1, torch.float32)[0])][-1]
    # _run seeds what it weighs by: without this all draws but the first would be one
    torch.manual_seed(draw)
    record, state = RECORDS[name](97, torch.float32)
    truth = [x.double() if not x.is_complex() else x.to(torch.complex128) for x in record if _float(x)]
    it = iter(truth)
    exact = type(record)(*(next(it) if _float(x) else x for x in record))
    exact_state = each(lambda x: x.to(torch.complex128 if x.is_complex() else torch.float64), state)
    clock = _clock(97, reset=True)
    want, theirs = _run(loop, exact, exact_state, clock), _run(loop, record, state, clock)
    return record, state, clock, want, theirs


def _largest(x):
    return float(x.abs().max())


def _off(errors):
    """Which results, by their place, are more than twice as far off as the loop's: their error and what is allowed."""
    medians = [tuple(map(median, zip(*draws, strict=True))) for draws in zip(*errors, strict=True)]
    allowed = [2 * theirs + torch.finfo(torch.float32).eps * max(size, 1) for _, theirs, size in medians]
    return {i: (mine[0], most) for i, (mine, most) in enumerate(zip(medians, allowed, strict=True)) if mine[0] > most}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", RECORDS)
def test_the_definition_passes_gradcheck(name):
    record, state = RECORDS[name](3, torch.float64)
    clock = _clock(3, reset=True)
    inputs = [x.requires_grad_() for x in record if _float(x)]
    own = [x.requires_grad_() for x in leaves(state)]

    def run(*tensors):
        it = iter(tensors)
        fresh = type(record)(*(next(it) if _float(x) else x for x in record))
        ready, start = prepare(fresh, each(lambda _: next(it), state), clock)
        read, final = IMPLEMENTATIONS[type(record)][-1].scan(ready, start)
        torch.manual_seed(7)
        total = sum((x * _weight(x)).sum() for x in (read, *leaves(final)))
        return total.real if total.is_complex() else total

    # along one direction of all inputs together: each number by itself would take ten times as long
    assert torch.autograd.gradcheck(run, [*inputs, *own], fast_mode=True)


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
@pytest.mark.parametrize("cut", [1, 16, 33, 63])
def test_a_cut_changes_nothing(name, implementation, cut):
    record, state = RECORDS[name](64, torch.float64)
    clock = _clock(64, reset=True)
    ready, start = prepare(record, state, clock)
    whole, last = implementation.scan(ready, start)

    def piece(a, b):
        return type(ready)(
            *(x[:, a:b] if isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] == 64 else x for x in ready)
        )

    reads = []
    for a, b in ((0, cut), (cut, 64)):
        module = IMPLEMENTATIONS[type(record)][-1] if implementation.declines(piece(a, b), start) else implementation
        read, start = module.scan(piece(a, b), start)
        reads.append(read)
    torch.testing.assert_close(torch.cat(reads, 1), whole, rtol=1e-10, atol=1e-10)
    for x, y in zip(leaves(start), leaves(last), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
def test_a_reset_forgets_even_nan(name, implementation):
    record, state = RECORDS[name](20, torch.float64)
    reset = torch.zeros(B, 20, dtype=torch.bool)
    reset[:, 0] = True
    ready, start = prepare(record, each(lambda x: torch.full_like(x, torch.nan), state), Clock(reset))
    if implementation.declines(ready, start) is not None:
        return
    read, last = implementation.scan(ready, start)
    assert all(torch.isfinite(x).all() for x in (read, *leaves(last)))


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
def test_strided_inputs_give_the_same(name, implementation):
    record, state = RECORDS[name](33, torch.float64)
    ready, start = prepare(record, state, None)

    def strided(x):
        return x.transpose(0, -1).contiguous().transpose(0, -1) if isinstance(x, Tensor) else x

    want, want_last = implementation.scan(ready, start)
    got, got_last = implementation.scan(type(ready)(*map(strided, ready)), each(strided, start))
    torch.testing.assert_close(got, want)
    for x, y in zip(leaves(got_last), leaves(want_last), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("name", RECORDS)
def test_autocast_outside_does_not_lower_what_is_inside(name):
    record, state = RECORDS[name](40, torch.float32)
    want, want_last = Scan()(record, state)
    with torch.autocast("cpu", torch.bfloat16):
        got, got_last = Scan()(record, state)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    for x, y in zip(leaves(got_last), leaves(want_last), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
