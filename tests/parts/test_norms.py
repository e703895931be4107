"""Norms against torch's, in every type, and at zero."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.parts.norms import RMSNorm, rms_gated, unit


@pytest.mark.parametrize("groups", [1, 3])
def test_rms_norm_equals_torch(groups):
    norm = RMSNorm(12, groups=groups, epsilon=1e-3).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    apart = F.rms_norm(x.unflatten(-1, (groups, -1)), (12 // groups,), None, 1e-3).flatten(-2)
    assert_close(norm(x), norm.weight * apart)


def test_rms_norm_squares_in_the_wide_type():
    x = (100 * torch.randn(4, 1000)).bfloat16()
    y = RMSNorm(1000).bfloat16()(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.double(), F.rms_norm(x.double(), (1000,)), rtol=2**-8, atol=0)


@pytest.mark.parametrize("squash", [None, F.silu])
@pytest.mark.parametrize("steps", [2, 300])
def test_a_gated_norm_is_of_each_head_and_one_pass_agrees(steps, squash):
    read, both = torch.randn(2, steps, 2, 16, dtype=torch.float64), torch.randn(2, steps, 64, dtype=torch.float64)
    leaves = read.requires_grad_(), both.requires_grad_()
    gate = both.split(32, -1)[1]
    expected = F.rms_norm(read, (16,), None, 1e-3).flatten(-2) * (gate if squash is None else squash(gate))
    found = rms_gated(read, gate, 1e-3, squash)
    assert_close(found, expected)
    grad = torch.randn_like(found)
    assert_close(torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad))


def test_unit_has_length_one_and_at_zero_a_gradient():
    x = torch.randn(3, 8, dtype=torch.float64)
    assert_close(unit(x, 0.0), F.normalize(x, dim=-1))
    zero = torch.zeros(8, requires_grad=True)
    y = unit(zero)
    (grad,) = torch.autograd.grad(y.sum(), zero)
    assert (y == 0).all() and torch.isfinite(grad).all()


def test_the_gradient_of_a_length_has_gradients_of_its_own_and_rows():
    x, along = torch.randn(2, 5, 6, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(unit, x) and torch.autograd.gradgradcheck(unit, x)
    back = torch.func.vjp(unit, x)[1]
    rows = torch.vmap(lambda row: torch.func.vjp(unit, row)[1](row.cos())[0])(x)
    assert_close(rows, back(x.cos())[0])
    assert_close(torch.func.vjp(lambda v: back(v)[0], along)[1](x)[0], back(x)[0])
