"""What chunk forms could get wrong and other forms could not: their blocks, their masks and their memory."""

import pytest
import torch
from ops.records import RECORDS, B
from torch.utils._python_dispatch import TorchDispatchMode

from recurra import state as states
from recurra.clock import Clock
from recurra.ops import MAX_PLUS, SUM, Delta, Diag, LowRank, Outer, Selective, ShortConv
from recurra.ops.conv import chunk as conv_chunk, loop as conv_loop
from recurra.ops.diag import chunk as diag_chunk, loop as diag_loop
from recurra.ops.scan import IMPLEMENTATIONS, name_of, prepare
from recurra.ops.selective import chunk as selective_chunk
from recurra.shapes import Tensor

CHUNKED = [
    pytest.param(name, chunk, loop, id=name)
    for name, make in RECORDS.items()
    for several in [IMPLEMENTATIONS[type(make(3, torch.float64)[0])]]
    for chunk, loop in [(next((x for x in several if name_of(x) == "chunk"), None), several[-1])]
    if chunk is not None
]
# a state space reads a number from its record, conjugate gradients stop by one, and where the chunks of descent
# begin is in its state: they cannot run nowhere
ANYWHERE = [x for x in CHUNKED if not str(x.id).startswith(("state-space", "least-squares", "descent"))]
each_chunk = pytest.mark.parametrize(("name", "chunk", "loop"), CHUNKED)


def _float(x):
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _run(module, record, state):
    """The read and the final state's parts, and the gradients of all with respect to every float given."""
    record = type(record)(*(x.detach().clone().requires_grad_() if _float(x) else x for x in record))
    state = states.each(lambda x: x.detach().clone().requires_grad_(), state)
    assert module.declines(record, state) is None
    read, last = module.scan(record, state)
    torch.manual_seed(7)
    ends = [read, *states.leaves(last)]
    total = sum((x * _weight(x)).sum() for x in ends)
    return [x.detach() for x in ends], _gradients(total, record, state)


def _weight(x):
    """Random numbers that are the same in every precision and memory layout."""
    return torch.randn(x.shape, dtype=torch.complex128 if x.is_complex() else torch.float64).to(x.device, x.dtype)


def _gradients(total, record, state):
    wanted = [*(x for x in record if _float(x)), *states.leaves(state)]
    total = total.real if total.is_complex() else total
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]


def _same(got, want, **kw):
    for x, y in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        torch.testing.assert_close(x, y, **kw)


@each_chunk
def test_a_long_sequence(name, chunk, loop):
    """Longer than the longest block, which is of 256 steps."""
    record, state = RECORDS[name](300, torch.float64)
    reset = torch.rand(B, 300) < 0.02
    reset[:, 0] = torch.tensor([True, False])
    valid = torch.arange(300)[None] < torch.tensor([[300], [171]])
    record, state = prepare(record, state, Clock(reset, valid))
    _same(_run(chunk, record, state), _run(loop, record, state), rtol=1e-9, atol=1e-9)


@each_chunk
@pytest.mark.parametrize("at", [0, 5, 70])
def test_a_reset_inside_a_chunk_forgets_a_ruined_state(name, chunk, loop, at):
    """Of NaN and of infinity, against the loop from a whole state, which is run once for both."""
    record, state = RECORDS[name](90, torch.float64)
    reset = torch.zeros(B, 90, dtype=torch.bool)
    reset[0, at] = True  # the other row begins nowhere, and its state is whole
    record, good = prepare(record, state, Clock(reset))
    own = [x for x in record if _float(x)]

    def after(module, state):
        """All there is of the steps from the reset on: no number before it may touch them."""
        live = type(record)(*(x.detach().clone().requires_grad_() if _float(x) else x for x in record))
        state = states.each(lambda x: x.clone().requires_grad_(), state)
        read, last = module.scan(live, state)
        kept = [read[:, at:], read[1, :at], *states.leaves(last)]
        total = sum((x * torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)).sum() for x in kept)
        return kept, _gradients(total, live, state)

    whole, expected = after(loop, good)
    for bad in (torch.nan, torch.inf):
        ruined = states.each(torch.clone, good)
        for part in states.leaves(ruined):
            part[0] = bad
        kept, grads = after(chunk, ruined)
        for x, y in zip(kept, whole, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
        for g, h, x in zip(grads, expected, own, strict=False):
            # a parameter of every step, such as a constant decay, meets the ruined state before the reset
            if x.ndim > 1 and x.shape[1] == 90:
                torch.testing.assert_close(g[:, at:], h[:, at:], rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(g[1], h[1], rtol=1e-10, atol=1e-10)
        for g, h in zip(grads[len(own) :], expected[len(own) :], strict=True):
            torch.testing.assert_close(g[1], h[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ring", [SUM, MAX_PLUS])
def test_a_reset_of_a_diagonal_forgets_ruined_inputs(ring):
    record, state = RECORDS["diag" if ring is SUM else "diag-max-plus"](50, torch.float64)
    reset = torch.zeros(B, 50, dtype=torch.bool)
    reset[:, 30] = True
    record.decay[:, 27] = torch.nan
    record.drive[:, 28] = torch.nan
    record = record._replace(reset=reset)
    read, last = diag_chunk.scan(record, state)
    want, end = diag_loop.scan(record, state)
    torch.testing.assert_close(read, want, equal_nan=True)
    torch.testing.assert_close(last, end)
    assert torch.isfinite(read[:, 30:]).all()


@pytest.mark.parametrize("name", [n for n in RECORDS if n.startswith(("outer", "delta", "low-rank"))])
def test_a_decay_of_zero_forgets(name):
    record, state = RECORDS[name](80, torch.float64)
    if record.log_decay is None:
        record = record._replace(log_decay=torch.zeros_like(record.key[..., 0]))
    record.log_decay[torch.rand(record.log_decay.shape) < 0.1] = -torch.inf
    chunk, loop = (m for m in IMPLEMENTATIONS[type(record)] if name_of(m) in ("chunk", "loop"))
    got, want = _run(chunk, record, state), _run(loop, record, state)
    assert all(torch.isfinite(x).all() for x in (*got[0], *got[1]))
    _same(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in RECORDS if n.startswith(("outer", "delta", "low-rank"))])
def test_after_the_strongest_decay_the_weakest_is_still_exact(name):
    """A difference of cumulative sums near -1e4 is off by 1e-3 in float32; sums of their own are not."""
    ours, theirs, scale = [], [], []
    for _ in range(4):
        record, state = RECORDS[name](64, torch.float32)
        if record.log_decay is not None:
            strong = (torch.arange(64) < 8).reshape(1, 64, *(1,) * (record.log_decay.ndim - 2))
            record = record._replace(log_decay=torch.where(strong, -1000.0, 0.02 * record.log_decay.clamp(min=-1)))
        chunk, loop = (m for m in IMPLEMENTATIONS[type(record)] if name_of(m) in ("chunk", "loop"))
        double = type(record)(*(x.double() if _float(x) else x for x in record))
        ends, grads = _run(loop, double, state.double())
        truth = (*ends, *grads)
        scale.append([float(x.abs().max().clamp(min=1)) for x in truth])
        for into, module in ((ours, chunk), (theirs, loop)):
            ends, grads = _run(module, record, state)
            into.append([float((x - y).abs().max()) for x, y in zip((*ends, *grads), truth, strict=True)])
    for mine, loops, sizes in zip(*(zip(*x, strict=True) for x in (ours, theirs, scale)), strict=True):
        assert max(mine) <= 2 * max(loops) + torch.finfo(torch.float32).eps * max(sizes)


@pytest.mark.parametrize("constant", [False, True])
def test_the_diagonals_gradient_has_a_gradient(constant):
    record, state = RECORDS["diag-complex-constant" if constant else "diag-complex"](5, torch.float64)
    reset = torch.tensor([[False, True, False, False, True], [True, False, False, False, False]])
    inputs = [x.requires_grad_() for x in (record.decay, record.drive, state)]

    def run(decay, drive, state):
        return diag_chunk.scan(Diag(decay, drive, SUM, reset), state)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_a_real_decay_of_a_complex_state():
    record, state = RECORDS["diag-complex"](9, torch.float64)
    for decay in (record.decay.abs(), record.decay[0, 0].abs()):
        own = record._replace(decay=decay)
        _same(_run(diag_chunk, own, state), _run(diag_loop, own, state))
    assert "complex128" in str(diag_chunk.declines(record._replace(drive=record.drive.real), state))


@pytest.mark.parametrize("reset", [None, torch.zeros(B, 80, dtype=torch.bool)], ids=["plain", "reset"])
@pytest.mark.parametrize(("name", "chunk", "loop"), ANYWHERE)
def test_everything_is_made_where_the_record_is(name, chunk, loop, reset):
    """A tensor made on the CPU by oversight does not mix with tensors that are nowhere."""
    record, state = RECORDS[name](80, torch.float32)
    record = record._replace(reset=reset)
    there = type(record)(*(x.to("meta") if isinstance(x, Tensor) else x for x in record))
    _run(chunk, there, states.to(state, "meta"))


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("gradient", [False, True])
def test_the_selective_scan_never_holds_all_its_coefficients(gradient):
    T, D, N = 4 * selective_chunk.BLOCK + 1, 4, 8
    x, step = torch.randn(1, T, D), torch.rand(1, T, D)
    record = Selective(x.requires_grad_(gradient), step, -torch.rand(D, N), torch.randn(1, T, N), torch.randn(1, T, N))
    with _Largest() as largest:
        read, _ = selective_chunk.scan(record, torch.zeros(1, D, N))
        if gradient:
            read.sum().backward()
    assert 0 < largest.numel < 1.1 * selective_chunk.BLOCK * D * N + T * N


def test_a_convolution_declines_gaps_and_takes_rows_of_any_length():
    x, weight, past = torch.randn(3, 6, 2), torch.randn(2, 4), torch.randn(3, 3, 2)
    gaps = ShortConv(x, weight, valid=torch.tensor([[True, False, True, True, True, True]] * 3))
    assert "align" in str(conv_chunk.declines(gaps, past))
    for counts in ([0, 2, 6], [6, 1, 0], [3, 3, 3]):
        record = ShortConv(x, weight, valid=Clock.lengths(counts, 6).valid, reset=torch.rand(3, 6) < 0.3)
        for got, want in zip(conv_chunk.scan(record, past), conv_loop.scan(record, past), strict=True):
            torch.testing.assert_close(got, want)


def test_a_convolution_of_one_tap_has_no_past():
    record = ShortConv(torch.randn(2, 5, 3), torch.randn(3, 1), reset=torch.rand(2, 5) < 0.5)
    for valid in (None, Clock.lengths([5, 2]).valid):
        read, past = conv_chunk.scan(record._replace(valid=valid), torch.zeros(2, 0, 3))
        torch.testing.assert_close(read, conv_loop.scan(record._replace(valid=valid), torch.zeros(2, 0, 3))[0])
        assert past.shape == (2, 0, 3)


def test_no_decay_forgets_nothing_over_many_chunks():
    query = key = torch.ones(1, 200, 1, 1)
    value = torch.ones(1, 200, 1, 1)
    for record in (
        Outer(query, key, value),
        Delta(query, key, value, 0 * key),
        LowRank(query, key, value, key, 0 * key),
    ):
        chunk = next(m for m in IMPLEMENTATIONS[type(record)] if name_of(m) == "chunk")
        read, last = chunk.scan(record, torch.zeros(1, 1, 1, 1))
        assert (read[0, :, 0, 0] == torch.arange(1.0, 201)).all() and last.item() == 200


@pytest.mark.parametrize("module", [m for m in IMPLEMENTATIONS[Diag] if name_of(m) != "loop"], ids=name_of)
def test_the_log_of_nothing_so_far_has_no_gradient(module):
    """The state before the first step is log 0, and so is the drive of a step that did not happen."""
    record, state = RECORDS["diag-log-sum"](30, torch.float64)
    record.drive[0, :7] = record.drive[1, 20:] = -torch.inf
    state[0] = -torch.inf
    if module.declines(record, state) is None:
        got, want = _run_finite(module, record, state), _run_finite(diag_loop, record, state)
        _same(got, want, rtol=1e-10, atol=1e-10)
        assert all(torch.isfinite(g).all() for g in got[2])


def _run_finite(module, record, state):
    """As `_run`, where the numbers that are log 0 are worth nothing."""
    record = record._replace(decay=record.decay.clone().requires_grad_(), drive=record.drive.clone().requires_grad_())
    state = state.clone().requires_grad_()
    read, last = module.scan(record, state)
    torch.manual_seed(7)
    total = sum((x.masked_fill(torch.isinf(x), 0) * _weight(x)).sum() for x in (read, last))
    return read.detach(), last.detach(), _gradients(total, record, state)
