"""Products of groups in C against torch's: values, both gradients, sizes that fill no vector, threads, the compiler."""

import pytest
import torch
from torch.testing import assert_close

from recurra import use
from recurra.ops import native as kernels
from recurra.ops.grouped import grouped, loop, native

pytestmark = pytest.mark.skipif(kernels.available() is not None, reason=str(kernels.available()))

# groups and their features: of less than a vector, that fill one, ragged, of several, and a rest of groups
SIZES = [(8, 4), (16, 1), (7, 3), (5, 24), (4, 32), (3, 40)]
STEPS = 77


def _given(groups, size, real):
    torch.manual_seed(groups)
    weight = torch.randn(groups, size, size, dtype=torch.float64).to(real).requires_grad_()
    # a part of a projection, read where it lies
    both = torch.randn(3, STEPS, 2 * groups * size, dtype=torch.float64).to(real).requires_grad_()
    return both, weight


def _run(run, both, weight):
    y = run(both.chunk(2, -1)[1], weight)
    torch.manual_seed(9)
    asks = torch.randn(3, STEPS, 2 * y.shape[-1], dtype=torch.float64).to(y.dtype)[..., 1::2]
    return [y.detach(), *torch.autograd.grad((y * asks).sum(), (both, weight))]


@pytest.mark.parametrize(("groups", "size"), SIZES)
def test_values_and_gradients_equal_torchs(groups, size):
    given = _given(groups, size, torch.float64)
    for x, y in zip(_run(native.run, *given), _run(loop.run, *given), strict=True):
        assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("groups", "size"), SIZES)
def test_float32_error_is_at_most_twice_torchs(groups, size):
    given = _given(groups, size, torch.float32)
    truth = _run(loop.run, *(x.detach().double().requires_grad_() for x in given))
    for x, theirs, want in zip(_run(native.run, *given), _run(loop.run, *given), truth, strict=True):
        off, allowed = (float((part - want).abs().max()) for part in (x, theirs))
        assert off <= 2 * allowed + 1e-6 * float(want.abs().max())


@pytest.mark.parametrize(("groups", "size"), SIZES)
def test_one_gradient_alone_has_the_bits_of_both(groups, size):
    both, weight = _given(groups, size, torch.float64)
    y = native.run(both, torch.cat([weight, weight]))
    asks = torch.randn(y.shape, dtype=y.dtype)
    x_grad, weight_grad = torch.autograd.grad((y * asks).sum(), (both, weight))
    y = native.run(both, torch.cat([weight, weight]).detach())
    assert torch.equal(torch.autograd.grad((y * asks).sum(), both)[0], x_grad)
    y = native.run(both.detach(), torch.cat([weight, weight]))
    assert torch.equal(torch.autograd.grad((y * asks).sum(), weight)[0], weight_grad)


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    given = torch.randn(27, STEPS, 256, requires_grad=True), torch.randn(8, 16, 16, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = native.run(given[0][..., :128], given[1])
            results.append([y, *torch.autograd.grad(y.square().sum(), given)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_what_no_kernel_takes_is_left_to_torch():
    x, weight = torch.randn(4, 300, 32), torch.randn(4, 8, 8)
    assert native.declines(x, weight) is None
    assert "fewer than" in (native.declines(x[:1, :9], weight) or "")
    assert "more than" in (native.declines(torch.ones(4, 99, 128), torch.ones(1, 128, 128)) or "")
    assert native.declines(x.bfloat16(), weight.bfloat16()) is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert grouped(x, weight).dtype == grouped(x[:1, :9], weight).dtype == torch.bfloat16
    with use("loop"):
        assert torch.equal(grouped(x, weight), loop.run(x, weight))


# torch's own, when forward mode is first asked for
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_of_torch_are_left_to_torch():
    x, weight = torch.randn(4, 300, 32), torch.randn(4, 8, 8)
    want = loop.run(x, weight)
    _, tangent = torch.func.jvp(lambda part: grouped(part, weight), (x,), (x,))
    assert_close(tangent, want)
    assert_close(torch.func.vjp(lambda part: grouped(part, weight), x)[1](want)[0], loop.run(want, weight.mT))
    assert_close(torch.vmap(lambda part: grouped(part, weight))(torch.stack([x, x]))[1], want)
    with torch.autograd.forward_ad.dual_level():
        y = grouped(torch.autograd.forward_ad.make_dual(x, x), weight)
        assert_close(torch.autograd.forward_ad.unpack_dual(y).tangent, want)


def test_an_operator_gives_the_kernels_bits(monkeypatch):
    given = _given(4, 32, torch.float32)
    want = _run(native.run, *given)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert all(torch.equal(x, y) for x, y in zip(_run(native.run, *given), want, strict=True))
