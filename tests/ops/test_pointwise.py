"""Maps of every number by itself in C against the same maps in torch: values, every gradient, shapes and threads."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.ops.pointwise import Map, loop, native, pointwise

B, T, H, K = 3, 70, 5, 19


def _gated(x, gate, scale, weight):
    return x * scale * weight * F.silu(gate), torch.where(gate > 0, x.exp(), torch.expm1(x)).clamp(max=3)


def _one(x, weight):
    return torch.maximum(x, weight) / (1 + x.abs())


def _lengths(x, y, scale, weight):
    return (x * x + weight * weight, x * y * scale)


def _near(x, y, scale, weight, squares, products, count):
    return x * (squares / count + 1e-3).rsqrt() + products.tanh() * y, products.sigmoid() * weight * y


MAPS = {
    "summed": (
        Map("summed", _near, 2, _lengths),
        ((B, T, H, K), (B, T, H, K), (B, T, H, 1), (K,)),
    ),
    "gated": (Map("gated", _gated, 2), ((B, T, H, K), (B, T, H, K), (B, T, H, 1), (K,))),
    "heads": (Map("gated", _gated, 2), ((B, T, H, K), (B, T, H, K), (B, T, H, 1), (H, K))),
    "one": (Map("one", _one), ((B, T, K * H), (K * H,))),
}


def _tensors(name, real):
    torch.manual_seed(3)
    way, shapes = MAPS[name]
    return way, [torch.randn(shape, dtype=torch.float64).to(real).requires_grad_() for shape in shapes]


def _run(run, way, tensors, leaves=None):
    results = run(way, tuple(tensors))
    results = (results,) if way.outputs == 1 else results
    torch.manual_seed(5)
    total = sum((y * torch.randn(y.shape, dtype=torch.float64).to(y.dtype)).sum() for y in results)
    return [*results, *torch.autograd.grad(total, leaves or tensors)]


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    monkeypatch.setattr(native, "FEW", 0)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("real", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_values_and_gradients_equal_torchs(name, real, bound):
    way, tensors = _tensors(name, real)
    assert native.declines(way, tuple(tensors)) is None
    for x, y in zip(_run(native.run, way, tensors), _run(loop.run, way, tensors), strict=True):
        assert_close(x, y, rtol=bound, atol=bound)


@pytest.mark.parametrize("name", MAPS)
def test_any_number_of_threads_gives_the_same_bits(name):
    way, tensors = _tensors(name, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_run(native.run, way, tensors))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_parts_of_a_projection_are_read_where_they_lie():
    both = torch.randn(B, T, 2 * H * (K + 1), dtype=torch.float64, requires_grad=True)
    x, gate = (part.unflatten(-1, (H, -1)) for part in both.chunk(2, -1))
    # without the last feature of each head, between two steps there is more than a row
    x, gate = x[..., :-1], gate[..., 1:]
    way, (_, _, scale, weight) = _tensors("gated", torch.float64)
    leaves = [both, scale, weight]
    ours = _run(native.run, way, (x, gate, scale, weight), leaves)
    for a, b in zip(ours, _run(loop.run, way, (x, gate, scale, weight), leaves), strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_several_heads_share_is_read_where_it_lies():
    turn = Map("turned", lambda real, imaginary, size: (real * size, imaginary - size), complex=True)
    _, (x, y, *_) = _tensors("gated", torch.float64)
    found = []
    for run in (native.run, loop.run):
        pairs = torch.complex(x, y)[:, :, :1].expand_as(x)
        result = run(turn, (pairs, y[:, :, :1].expand_as(x)))
        found.append([result, *torch.autograd.grad(torch.view_as_real(result).square().sum(), (x, y))])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_nan_passes_and_exponentials_reach_the_ends():
    way = Map("ends", lambda x: (x.exp(), torch.minimum(x, x * 0 + 1)), 2)
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 88.5, -87.0, -103.0, 0.0, -0.3]).expand(1, 4, 8).contiguous()
    for ours, torchs in zip(native.run(way, (x,)), way.function(x), strict=True):
        assert_close(ours, torchs, equal_nan=True)


def test_what_no_kernel_takes_is_left_to_torch():
    way, tensors = _tensors("one", torch.float32)
    narrow = [x.bfloat16() for x in tensors]
    assert native.declines(way, tuple(narrow)) is not None
    assert_close(pointwise(way, *narrow), way.function(*narrow))
    cumulative = Map("cumulative", lambda x: x.cumsum(-1))
    assert "cumsum" in (native.declines(cumulative, (tensors[0],)) or "")
    short = [torch.ones(B, T, H, 8), torch.ones(B, T, H, 1)]
    assert "fewer than 16" in (native.declines(Map("short", lambda x, y: x * y), tuple(short)) or "")
    with use("loop"):
        assert torch.equal(pointwise(way, *tensors), way.function(*tensors))


def _turned(real, imaginary, size, weight):
    return real * size, imaginary * weight, size.sin() * imaginary, real - weight


COMPLEX = {
    "to complex": Map("turned", _turned, 2, complex=True),
    "to real": Map("straight", lambda real, imaginary, size, weight: real * size + weight * imaginary**2),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize(("kind", "bound"), [(torch.complex128, 1e-12), (torch.complex64, 2e-5)])
def test_complex_numbers_are_pairs_to_a_map(name, kind, bound):
    torch.manual_seed(3)
    # a part of a projection, and all of it
    both = torch.randn(B, T, 2 * K, dtype=torch.complex128).to(kind).requires_grad_()
    size, weight = (
        torch.randn(shape, dtype=torch.float64).to(both.real.dtype).requires_grad_() for shape in ((B, T, K), (K,))
    )
    way, leaves = COMPLEX[name], [both, size, weight]
    tensors = (both[..., K:], size, weight)
    assert native.declines(way, tensors) is None
    results = []
    for run in (native.run, loop.run):
        found = run(way, tensors)
        found = (found,) if way.outputs == 1 else found
        torch.manual_seed(5)
        total = sum((y * torch.randn(y.shape, dtype=torch.float64)).abs().square().sum() for y in found)
        results.append([*found, *torch.autograd.grad(total, leaves)])
    for x, y in zip(*results, strict=True):
        assert_close(x, y, rtol=bound, atol=10 * bound)
    column = (both, torch.ones(B, T, 1, dtype=kind))
    assert "has its own" in (native.declines(Map("no", lambda *x: x[0]), column) or "")


def _sines(angles):
    """Sines and cosines as the kernel takes them, and as they are."""
    way = Map("sines", lambda x: (x.sin(), x.cos()), 2)
    assert native.declines(way, (angles,)) is None
    return zip(pointwise(way, angles), (angles.double().sin(), angles.double().cos()), strict=True)


def test_sines_are_exact_to_a_rounding_up_to_angles_of_2_to_the_52():
    angles = torch.linspace(-3, 52, 64).exp2() * (2 * torch.rand(8, 64, 64) - 1)
    for got, true in _sines(angles):
        assert (got - true).abs().max() <= torch.finfo(torch.float32).eps / 2


def test_an_error_function_is_exact_to_a_rounding_and_its_gradient_to_torchs():
    x = torch.linspace(-10, 10, 1 << 16).view(1, -1, 16).requires_grad_()
    way = Map("erf", torch.erf)
    exact = x.detach().double().requires_grad_()
    ours, torchs, truth = native.run(way, (x,)), x.erf(), exact.erf()
    assert (ours - truth).abs().max() <= torch.finfo(torch.float32).eps / 2 * 1.5
    leaves = ((ours, x), (torchs, x), (truth, exact))
    ours, torchs, truth = (torch.autograd.grad(y.sum(), leaf)[0] for y, leaf in leaves)
    assert (ours - truth).abs().max() <= 2 * (torchs - truth).abs().max()


def test_a_sine_of_nothing_keeps_its_sign():
    (sine, _), (cosine, _) = _sines(torch.tensor([0.0, -0.0]).expand(8, 64, 32, 2).flatten(2).contiguous())
    assert torch.equal(sine.signbit(), torch.tensor([False, True]).repeat(32).expand(8, 64, 64))
    assert (cosine == 1).all()


def test_sines_of_larger_angles_stay_within_1():
    beyond = torch.linspace(52, 127, 64).exp2().expand(8, 64, 64).contiguous()
    assert all(got.abs().max() <= 1 for got, _ in _sines(beyond))


@pytest.mark.xfail(strict=True, reason="beyond 2**52 whole turns are lost, and torch's way would leave no vectors")
def test_sines_of_larger_angles_are_exact():
    beyond = torch.linspace(53, 127, 64).exp2().expand(8, 64, 64).contiguous()
    for got, true in _sines(beyond):
        assert (got - true).abs().max() <= torch.finfo(torch.float32).eps / 2
