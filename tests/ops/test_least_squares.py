"""What the engine tests do not ask of the normal equations: that late iterations are noticed, how exact others are,
and that threads change nothing.

A matrix has as many iterations as it has channels, times `MOST`; rounding makes an ill one need more.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.ops import LeastSquares
from recurra.ops.least_squares import chunk, conjugate, loop, native


def _record(K, log_decay, ridge, dtype=torch.float64, T=40):
    q, k, v = (torch.randn(1, T, 2, K, dtype=torch.float64) for _ in range(3))
    write = torch.rand(1, T, 2, dtype=torch.float64)
    parts = (q, F.normalize(k, dim=-1), v, write, torch.full((2, K), ridge), torch.full((1, T, 2), log_decay))
    return LeastSquares(*(part.to(dtype) for part in parts)), torch.zeros(1, 2, K, 2 * K, dtype=dtype)


def test_a_system_that_is_late_is_solved_by_the_definition(monkeypatch):
    record, state = _record(8, -0.1, 0.5)
    want, want_last = loop.scan(record, state)
    monkeypatch.setattr(conjugate, "solve", lambda product, right: None)
    value = record.value.requires_grad_()
    key = record.key.requires_grad_()
    got, last = chunk.scan(record, state)
    assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert_close(last, want_last)
    for mine, theirs in zip(
        torch.autograd.grad(got.square().sum(), (key, value)),
        torch.autograd.grad(loop.scan(record, state)[0].square().sum(), (key, value)),
        strict=True,
    ):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_iterations_that_do_not_end_are_given_up():
    right = torch.randn(1, 3, 1, 6, dtype=torch.float64)
    # an indefinite matrix has no end
    turned = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64).repeat(3, 3)
    assert conjugate.solve(lambda x: x @ turned, right) is None
    easy = conjugate.solve(lambda x: 3 * x, right)
    assert easy is not None
    assert_close(easy, right / 3)


@pytest.mark.parametrize("way", [chunk, native])
@pytest.mark.parametrize("K", [4, 7, 16, 64])
@pytest.mark.parametrize("log_decay", [-1e-6, -0.1, -30.0])
def test_float32_is_as_exact_as_cholesky(way, K, log_decay):
    torch.manual_seed(K)
    record, state = _record(K, log_decay, 0.25, T=200)
    truth, _ = loop.scan(record, state)
    narrow = LeastSquares(*(None if part is None else part.float() for part in record))
    mine, theirs = (float((x.scan(narrow, state.float())[0] - truth).abs().max()) for x in (way, loop))
    assert mine <= 2 * theirs + 8 * torch.finfo(torch.float32).eps * float(truth.abs().max())


def test_in_c_threads_change_nothing(request):
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    record, state = _record(33, -0.1, 0.25, torch.float32, T=130)
    found = []
    for several in (1, 2, 3):
        torch.set_num_threads(several)
        key = record.key.detach().requires_grad_()
        read, _ = native.scan(record._replace(key=key), state)
        found.append((read, *torch.autograd.grad(read.square().sum(), key)))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("way", [chunk, native, loop])
def test_what_is_read_may_be_changed_in_place(way):
    """It is nobody else's, nor a part of what is larger."""
    record, state = _record(4, -0.1, 0.5)
    read, _ = way.scan(record._replace(value=record.value.requires_grad_()), state)
    assert read.untyped_storage().nbytes() == read.numel() * read.element_size()
    (got,) = torch.autograd.grad(read.clone().square().sum(), record.value, retain_graph=True)
    (double,) = torch.autograd.grad(read.mul_(2).square().sum(), record.value)
    assert_close(double, 4 * got)
