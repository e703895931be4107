"""What is particular to compiled kernels: threads, sizes, single steps, and machines without a compiler."""

import pytest
import torch
import torch.utils.checkpoint
from torch.nn import functional as F

from recurra.ops import LOG_SUM, MAX_PLUS, MIN_MAX, SUM, Delta, Diag, LowRank, Outer, Scan, Selective, ShortConv, native
from recurra.ops.scan import IMPLEMENTATIONS, name_of, prepare, use
from recurra.shapes import Tensor

needs_compiler = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


def _normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def _diag(ring, B, T, D, constant=False, dtype=torch.float64):
    shape = (D,) if constant else (B, T, D)
    decay = torch.rand(shape, dtype=torch.float64) if ring is SUM else _normal(*shape) - int(ring is not MIN_MAX)
    return Diag(decay.to(dtype), _normal(B, T, D, dtype=dtype), ring), _normal(B, D, dtype=dtype)


def _complex(B, T, D, constant=False):
    real, state = _diag(SUM, B, T, D, constant)
    decay = torch.polar(real.decay, 3 * torch.rand_like(real.decay))
    return Diag(decay, torch.complex(real.drive, real.drive.flip(1))), torch.complex(state, state.flip(1))


def _matrix(kind, B, T, H, K, V, decay="key", dtype=torch.float64, **more):
    q, k, v = _normal(B, T, H, K, dtype=dtype), F.normalize(_normal(B, T, H, K, dtype=dtype), dim=-1), None
    v, state = _normal(B, T, H, V, dtype=dtype), _normal(B, H, K, V, dtype=dtype)
    g = {"none": None, "head": -torch.rand(B, T, H), "key": -torch.rand(B, T, H, K)}[decay]
    g = None if g is None else g.to(dtype)
    if kind is Outer:
        return Outer(q, k, v, g, **more), state
    strength = torch.rand(B, T, H, 1).to(dtype)
    return Delta(q, k, v, k * strength, g) if kind is Delta else LowRank(q, k, v, -k, k * strength, g), state


def _conv(B, T, D, J=4, dtype=torch.float64):
    record = ShortConv(_normal(B, T, D, dtype=dtype), _normal(D, J, dtype=dtype), _normal(D, dtype=dtype))
    return record, _normal(B, J - 1, D, dtype=dtype)


def _selective(B, T, D, N, dtype=torch.float64):
    x, b, c = _normal(B, T, D), _normal(B, T, N), _normal(B, T, N)
    record = Selective(x, F.softplus(_normal(B, T, D)), -4 * torch.rand(D, N, dtype=torch.float64), b, c)
    return Selective(*(t.to(dtype) for t in record[:5])), _normal(B, D, N, dtype=dtype)


def _float(x):
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _run(name, record, state, gradients=True):
    """Read, last state and, if asked, the gradients of a fixed function of them."""
    module = next(m for m in IMPLEMENTATIONS[type(record)] if name_of(m) == name)
    leaf = [x.detach().requires_grad_(gradients) if _float(x) else x for x in record]
    state = state.detach().requires_grad_(gradients)
    record, start = prepare(type(record)(*leaf), state)
    reason = module.declines(record, start)
    assert reason is None, reason
    read, last = module.scan(record, start)
    if not gradients:
        return [read, last]
    torch.manual_seed(1)
    total = sum((x * torch.randn(x.shape, dtype=x.dtype)).sum() for x in (read, last))
    total = total.real if total.is_complex() else total
    wanted = [*(x for x in leaf if _float(x)), state]
    return [read.detach(), last.detach(), *torch.autograd.grad(total, wanted)]


def _same(got, want, tolerance=1e-10):
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance * float(y.abs().max().clamp_min(1)))


def _resets(record, rate):
    x = record.drive if isinstance(record, Diag) else record.x if hasattr(record, "x") else record.key
    return record._replace(reset=torch.rand(x.shape[:2]) < rate)


@pytest.fixture
def two_threads():
    """Kernels may use two threads, as they do outside of tests."""

    def use(threads):
        torch.set_num_threads(threads)

    yield use
    torch.set_num_threads(1)


# Large enough that two threads do run: small work stays on one. B = 1 splits features.
LARGE = {
    **{f"features-few-{r.name}": lambda r=r: _diag(r, 1, 7_000, 30) for r in (SUM, MIN_MAX, MAX_PLUS, LOG_SUM)},
    "features-complex": lambda: _complex(1, 7_000, 19),
    "features-constant": lambda: _diag(SUM, 1, 7_000, 30, constant=True),
    "features-split": lambda: _diag(SUM, 1, 1_100, 200),
    "rows-split": lambda: _diag(SUM, 3, 600, 130),
    "outer-head": lambda: _matrix(Outer, 1, 430, 4, 32, 32, "head"),
    "outer-key": lambda: _matrix(Outer, 1, 430, 4, 32, 32, "key"),
    "outer-none": lambda: _matrix(Outer, 3, 180, 3, 32, 32, "none"),
    "delta-head": lambda: _matrix(Delta, 1, 430, 4, 32, 32, "head"),
    "delta-key": lambda: _matrix(Delta, 1, 430, 4, 32, 32, "key"),
    "low-rank-key": lambda: _matrix(LowRank, 1, 430, 4, 32, 32, "key"),
    "conv": lambda: _conv(2, 1_500, 70),
    "conv-many": lambda: _conv(2, 2_200, 20, 40),
    "selective": lambda: _selective(1, 600, 70, 5),
}


@needs_compiler
@pytest.mark.parametrize("resets", [0.0, 0.001, 0.1])
@pytest.mark.parametrize("name", LARGE)
def test_threads_change_nothing(name, resets, two_threads):
    record, state = LARGE[name]()
    record = _resets(record, resets) if resets else record
    want = _run("native", record, state)
    two_threads(2)
    got = _run("native", record, state)
    if name == "selective":  # its sums over channels are cut where the threads' shares are
        _same(got, want)
        want = _run("native", record, state)
    for x, y in zip(got, want, strict=True):
        assert torch.equal(x, y)


@needs_compiler
@pytest.mark.parametrize("ring", [SUM, MIN_MAX, MAX_PLUS, LOG_SUM], ids=lambda r: r.name)
def test_a_reset_forgets_nan_where_features_are_split(ring, two_threads):
    record, state = _diag(ring, 1, 7_000, 30)
    record.drive[:, :100] = torch.nan
    reset = torch.zeros(1, 7_000, dtype=torch.bool)
    reset[:, 100] = True
    two_threads(2)
    read, last = _run("native", record._replace(reset=reset), state, gradients=False)
    assert read[:, :100].isnan().all() and torch.isfinite(read[:, 100:]).all() and torch.isfinite(last).all()


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [64, 60, 1])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_results_around_the_cache_are_the_same(dtype, features, more):
    """From 1 MiB on, results are stored around the cache."""
    steps = (1 << 20) // (features * dtype.itemsize) // 2 + more
    record, state = _diag(SUM, 2, steps, features, dtype=dtype)
    got = _run("native", record, state)
    small = Diag(record.decay[:, :50], record.drive[:, :50])
    _same(_run("native", small, state, gradients=False)[:1], [got[0][:, :50]], 0.0)
    h, exact = state.double(), []
    for a, b in zip(record.decay.double().unbind(1), record.drive.double().unbind(1), strict=True):
        h = a * h + b
        exact.append(h)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-6
    _same([got[0].double(), got[1].double()], [torch.stack(exact, 1), h], tolerance)
    assert all(torch.isfinite(x).all() for x in got)


SIZES = [(1, 1), (3, 20), (16, 17), (33, 15), (5, 64), (40, 100)]


@needs_compiler
@pytest.mark.parametrize("T", [1, 40])
@pytest.mark.parametrize("decay", ["none", "head", "key"])
@pytest.mark.parametrize(("K", "V"), SIZES)
@pytest.mark.parametrize("kind", [Outer, Delta, LowRank])
def test_keys_and_values_of_any_size(kind, K, V, decay, T):
    record, state = _matrix(kind, 2, T, 3, K, V, decay)
    record = _resets(record, 0.2)
    _same(_run("native", record, state), _run("loop", record, state))
    _same(_run("native", record, state, gradients=False), _run("loop", record, state, gradients=False))


STEPS = {
    **{f"diag-{r.name}": lambda d, r=r: _diag(r, 3, 1, 37, dtype=d) for r in (SUM, MIN_MAX, MAX_PLUS, LOG_SUM)},
    "diag-complex": lambda d: _complex(3, 1, 37),
    "outer": lambda d: _matrix(Outer, 3, 1, 2, 40, 70, dtype=d),
    "outer-head": lambda d: _matrix(Outer, 3, 1, 2, 40, 130, "head", dtype=d),
    "outer-before": lambda d: _matrix(Outer, 3, 1, 2, 40, 70, "none", before=True, dtype=d),
    "outer-bonus": lambda d: _matrix(Outer, 3, 1, 2, 40, 70, before=True, bonus=_normal(2, 40, dtype=d), dtype=d),
    "delta": lambda d: _matrix(Delta, 3, 1, 2, 40, 70, dtype=d),
    "delta-none": lambda d: _matrix(Delta, 3, 1, 2, 40, 130, "none", dtype=d),
    "low-rank": lambda d: _matrix(LowRank, 3, 1, 2, 40, 70, dtype=d),
    "conv": lambda d: _conv(3, 1, 37, dtype=d),
    "conv-two": lambda d: _conv(3, 1, 37, 2, dtype=d),
    "selective": lambda d: _selective(3, 1, 37, 21, dtype=d),
}


@needs_compiler
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", STEPS)
def test_a_single_step(name, dtype, reset):
    record, state = STEPS[name](dtype)
    record = record._replace(reset=torch.tensor([[True], [False], [True]])) if reset else record
    before = state.clone()
    got = _run("native", record, state, gradients=False)
    assert torch.equal(state, before)
    _same(got, _run("loop", record, state, gradients=False), 1e-12 if got[0].dtype.itemsize > 4 else 3e-6)
    _same(_run("native", record, state)[:2], got, 1e-12 if got[0].dtype.itemsize > 4 else 3e-6)


NARROW = {
    **{f"diag-{r.name}": lambda r=r: _diag(r, 2, 37, 21) for r in (SUM, MIN_MAX, MAX_PLUS, LOG_SUM)},
    "diag-constant": lambda: _diag(SUM, 2, 37, 21, constant=True),
    "diag-few": lambda: _diag(SUM, 1, 37, 16),
    **{f"outer-{g}": lambda g=g: _matrix(Outer, 2, 37, 2, 20, 33, g) for g in ("none", "head", "key")},
    "outer-bonus": lambda: _matrix(Outer, 2, 37, 2, 20, 33, before=True, bonus=_normal(2, 20)),
    **{f"delta-{g}": lambda g=g: _matrix(Delta, 2, 37, 2, 20, 33, g) for g in ("none", "head", "key")},
    **{f"low-rank-{g}": lambda g=g: _matrix(LowRank, 2, 37, 2, 20, 33, g) for g in ("head", "key")},
    "diag-step": lambda: _diag(SUM, 3, 1, 37),
    "outer-step": lambda: _matrix(Outer, 3, 1, 2, 20, 70, "key"),
    "delta-step": lambda: _matrix(Delta, 3, 1, 2, 20, 70, "head"),
}


@needs_compiler
@pytest.mark.parametrize("mixed", [False, True], ids=["all", "mixed"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_numbers_are_read_as_they_are(name, kind, mixed):
    """Error against float64 at most twice the loop's, which gets everything widened; `mixed`: the decay is float32."""
    ours, loops, sizes = [], [], []
    for _ in range(3):
        record, state = NARROW[name]()
        decays = ("decay", "log_decay", "bonus")
        record = type(record)(*(
            x if not _float(x) else x.float() if mixed and field in decays else x.to(kind)
            for field, x in zip(record._fields, record, strict=True)
        ))  # fmt: skip
        record, state = _resets(record, 0.1), state.float()
        assert prepare(record, state)[0] is record, "it is widened before a kernel sees it"
        double = type(record)(*(x.double() if _float(x) else x for x in record))
        truth = _through("loop", double, state.double())
        sizes.append([float(x.abs().max()) for x in truth])
        for into, implementation in ((ours, "native"), (loops, "loop")):
            got = _through(implementation, record, state)
            into.append([float((x - y).abs().max()) for x, y in zip(got, truth, strict=True)])
    for mine, theirs, size in zip(*(zip(*x, strict=True) for x in (ours, loops, sizes)), strict=True):
        assert max(mine) <= 2 * max(theirs) + torch.finfo(torch.float32).eps * max(*size, 1), (mine, theirs)


def _through(name, record, state):
    """Read, last state and gradients, through the door that all mixers use."""
    leaf = [x.detach().requires_grad_() if _float(x) else x for x in record]
    state = state.detach().requires_grad_()
    with use(name):
        read, last = Scan()(type(record)(*leaf), state)
    torch.manual_seed(1)
    # numbers that every type has
    total = sum((x * torch.randint(-4, 5, x.shape).to(x.dtype)).double().sum() for x in (read, last))
    wanted = [*(x for x in leaf if _float(x)), state]
    return [x.detach().double() for x in (read, last, *torch.autograd.grad(total, wanted))]


@needs_compiler
@pytest.mark.parametrize("decay", ["head", "key"])
@pytest.mark.parametrize("kind", [Outer, Delta, LowRank])
def test_values_shared_out_among_threads_are_the_same_bits(kind, decay, two_threads):
    """One row and one head: the columns of values are divided, forward and back, in a long run with sequences in it."""
    record, state = _matrix(kind, 1, 1_200, 1, 20, 104, decay, dtype=torch.float32)
    record = _resets(record, 0.02)
    want = _run("native", record, state)
    for threads in (2, 3, 7):
        two_threads(threads)
        for x, y in zip(_run("native", record, state), want, strict=True):
            assert torch.equal(x, y)


@needs_compiler
def test_layouts_of_users_are_read_in_place_or_copied():
    """Slices of one projection, keys shared by heads, conjugates and negatives that torch only promises."""
    big = _normal(2, 30, 3 * 40)
    q, _, v = (x.unflatten(-1, (2, 20)) for x in big.split(40, -1))
    shared = _normal(2, 30, 1, 20).expand(2, 30, 2, 20)
    for kind in (Outer, Delta, LowRank):
        record, state = _matrix(kind, 2, 30, 2, 20, 20)
        record = record._replace(query=q, key=shared, value=v)
        state = state.transpose(2, 3)
        _same(_run("native", record, state), _run("loop", record, state))
    record, state = _complex(2, 30, 7)
    module = IMPLEMENTATIONS[Diag][0]
    lazy = Diag(record.decay.conj(), record.drive.conj())
    solid = Diag(record.decay.conj().resolve_conj(), record.drive.conj().resolve_conj())
    _same(module.scan(lazy, state.conj()), module.scan(solid, state.conj().resolve_conj()))
    lazy = Diag(torch.rand(2, 30, 7).double(), record.drive.conj().imag)
    assert lazy.drive.is_neg()
    _same(module.scan(lazy, state.real), module.scan(lazy._replace(drive=lazy.drive.resolve_neg()), state.real))


@needs_compiler
@pytest.mark.parametrize("name", LARGE)
def test_what_has_no_gradient_counts_as_zero(name):
    """Only the read, or only the last state, reaches the loss."""
    record, state = LARGE[name]()
    module = IMPLEMENTATIONS[type(record)][0]
    leaf = type(record)(*(x.requires_grad_() if _float(x) else x for x in record))
    wanted = [x for x in (*leaf, state.requires_grad_()) if _float(x)]
    both = _grads(sum(x.abs().sum() for x in module.scan(leaf, state)), wanted)
    read = _grads(module.scan(leaf, state)[0].abs().sum(), wanted)
    last = _grads(module.scan(leaf, state)[1].abs().sum(), wanted)
    _same([x + y for x, y in zip(read, last, strict=True)], both, 1e-9)


def _grads(loss, wanted):
    return torch.autograd.grad(loss, wanted)


@needs_compiler
def test_a_second_derivative_is_refused():
    record, state = _diag(SUM, 2, 5, 3)
    drive = record.drive.requires_grad_()
    read, _ = IMPLEMENTATIONS[Diag][0].scan(record, state)
    (grad,) = torch.autograd.grad(read.square().sum(), drive, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward(retain_graph=True)
    # asked of one tensor, nothing is gone through but what leads to it
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.grad((grad + drive.square()).sum(), drive)


@needs_compiler
def test_a_checkpoint_may_ask_for_a_graph_of_the_gradient():
    record, state = _diag(SUM, 2, 5, 3)
    drive = record.drive.requires_grad_()
    scan = lambda x: IMPLEMENTATIONS[Diag][0].scan(record._replace(drive=x), state)[0]  # noqa: E731
    (plain,) = torch.autograd.grad(scan(drive).square().sum(), drive)
    kept = torch.utils.checkpoint.checkpoint(scan, drive, use_reentrant=False)
    (grad,) = torch.autograd.grad(kept.square().sum(), drive, create_graph=True)
    assert torch.equal(grad, plain) and grad.requires_grad


@needs_compiler
def test_the_log_of_a_sum_is_exact_to_a_rounding():
    x = torch.linspace(-30, 30, 4001)
    record = Diag(torch.zeros(4001), torch.zeros(1, 1, 4001), LOG_SUM)
    got = IMPLEMENTATIONS[Diag][0].scan(record, x[None])[1][0]
    exact = torch.logaddexp(x.double(), torch.zeros(()).double())
    assert ((got.double() - exact).abs() / exact).max() < 2 * torch.finfo(torch.float32).eps
    ends = torch.tensor([[-torch.inf, torch.inf, torch.nan]])
    got = IMPLEMENTATIONS[Diag][0].scan(Diag(torch.zeros(3), torch.full((1, 1, 3), -torch.inf), LOG_SUM), ends)[1]
    assert torch.equal(got.nan_to_num(7.0), ends.nan_to_num(7.0))


@needs_compiler
@pytest.mark.parametrize("ring", [MIN_MAX, MAX_PLUS, LOG_SUM], ids=lambda r: r.name)
def test_ties_and_nothing_share_their_gradient_as_in_torch(ring):
    decay = torch.tensor([0.0, 1.0, -torch.inf]).double().repeat(2, 4, 7)
    drive = torch.tensor([0.0, 1.0, 1.0, -torch.inf]).double().repeat(2, 4, 6)[..., :21]
    state = torch.tensor([0.0, 1.0, -torch.inf]).double().repeat(2, 7).flip(1)
    record = Diag(decay, drive, ring)
    for x, y in zip(_run("native", record, state), _run("loop", record, state), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@needs_compiler
def test_what_no_kernel_takes_is_declined_with_its_reason():
    record, state = _diag(SUM, 2, 5, 3)
    module = IMPLEMENTATIONS[Diag][0]
    half = Diag(record.decay.half(), record.drive.half())
    assert "float16" in module.declines(half, state.half())
    assert "float16" in module.declines(half, state)
    assert module.declines(half, state.float()) is None
    assert "float" in module.declines(record._replace(decay=record.decay.float()), state)
    assert "meta" in module.declines(Diag(*(x.to("meta") for x in record[:2])), state.to("meta"))
    assert "ring" in module.declines(record._replace(ring=SUM._replace(name="mine")), state)
    assert "complex" in module.declines(record, state.to(torch.complex128))
    assert "shape" in module.declines(record._replace(decay=record.decay[:, :, :1]), state)
    assert "nothing" in module.declines(Diag(record.decay[:, :0], record.drive[:, :0]), state)
    conv, past = _conv(1, 5, 3, 129)
    assert "taps" in IMPLEMENTATIONS[ShortConv][0].declines(conv, past)
    gaps = torch.tensor([[True, False, True, True, True]])
    conv, past = _conv(1, 5, 3)
    assert "align" in IMPLEMENTATIONS[ShortConv][0].declines(conv.hold(gaps), past)


@needs_compiler
def test_no_memory_is_an_error_and_not_a_crash():
    record, state = _matrix(Delta, 1, 2, 1, 3, 3)
    fields = list(native.memory(record[:4], record.log_decay, state, None))
    with pytest.raises(AssertionError, match="fields"):
        native.call("delta", "forward", *fields, state, state, 1)
    # so many keys that a state does not fit into any memory
    fields[-5] = 1 << 44
    with pytest.raises(MemoryError, match="delta"):
        native.call("delta", "forward", *fields, state, state, None, 1)
