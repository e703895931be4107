"""Random features in C against torch's: values, all gradients, sizes that fill no vector, long waves, threads."""

import pytest
import torch
from torch.testing import assert_close

from recurra import use
from recurra.ops import native as kernels
from recurra.ops.waves import features, loop, native

pytestmark = pytest.mark.skipif(kernels.available() is not None, reason=str(kernels.available()))

# heads, what a vector has, and waves: of less than a vector, that fill some, ragged, with a rest
SIZES = [(4, 32, 32), (3, 5, 7), (2, 40, 20), (1, 16, 1)]


def _run(run, real, heads, size, waves, *, scaled=True, length=1.0):
    torch.manual_seed(heads)
    # a part of a projection, read where it lies
    both = torch.randn(3, 29, 2, heads, size, dtype=torch.float64)
    given = [both, length * torch.randn(heads, waves, size, dtype=torch.float64), torch.rand(3, 29, heads).double()]
    both, w, scale = (x.to(real).requires_grad_() for x in given)
    y = run(both[:, :, 1], w, scale if scaled else None)
    asks = torch.randn(y.shape, dtype=torch.float64).to(real)
    return [y.detach(), *torch.autograd.grad((y * asks).sum(), (both, w, scale)[: 2 + scaled])]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_equal_torchs(sizes, scaled):
    for x, y in zip(*(_run(way.run, torch.float64, *sizes, scaled=scaled) for way in (native, loop)), strict=True):
        assert_close(x, y, rtol=1e-12, atol=1e-12)


# angles of a few turns, of hundreds of them, and of more than are divided into turns in single precision
@pytest.mark.parametrize("length", [1.0, 100.0, 1e5])
@pytest.mark.parametrize("sizes", SIZES)
def test_float32_error_is_at_most_twice_torchs(sizes, length):
    mine, theirs, truth = (
        _run(run, real, *sizes, length=length)
        for run, real in ((native.run, torch.float32), (loop.run, torch.float32), (loop.run, torch.float64))
    )
    for x, y, want in zip(mine, theirs, truth, strict=True):
        # all errors together: the largest of a few dozen moves by as much between two processors' ways to add
        off, allowed = (float((part - want).norm()) for part in (x, y))
        assert off <= 2 * allowed + 1e-6 * float(want.norm())


def test_sines_are_as_exact_as_torchs():
    # one wave of one number: the angle is its length
    angle = torch.linspace(-999, 999, 200_001)[:, None, None]
    y = native.run(torch.full((1, 1, len(angle), 1), 1e6), angle, None)[0, 0].double()
    want = torch.cat([angle.double().sin(), angle.double().cos()], -1)[:, 0]
    assert float((y - want).abs().max()) < 1e-7


def test_any_number_of_threads_gives_the_same_bits():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            given = [torch.randn(shape, requires_grad=True) for shape in ((5, 301, 4, 16), (4, 24, 16), (5, 301, 4))]
            y = native.run(*given)
            results.append([y, *torch.autograd.grad(y.square().sin().sum(), given)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_what_no_kernel_takes_is_left_to_torch():
    x, waves = torch.randn(2, 3, 2, 8), torch.randn(2, 5, 8)
    assert native.declines(x, waves, None) is None
    assert features(x.bfloat16(), waves.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "autocast" in (native.declines(x, waves, None) or "")
    with use("loop"):
        assert torch.equal(features(x, waves), loop.run(x, waves, None))
    assert features(x[:, :0], waves).shape == (2, 0, 2, 10)
    nothing = torch.zeros_like(x).requires_grad_()
    assert torch.autograd.grad(features(nothing, waves).sum(), nothing)[0].isfinite().all()
