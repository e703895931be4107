"""That the rings are rings: what one scan over any of them relies on."""

import itertools

import pytest
import torch

from recurra.ops.rings import LOG_SUM, RINGS

each_ring = pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)


def _triples(ring):
    numbers = torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0, ring.zero, ring.one], dtype=torch.float64)
    numbers = numbers[numbers < torch.inf]
    return torch.tensor(list(itertools.product(numbers.tolist(), repeat=3)), dtype=torch.float64).unbind(1)


@each_ring
def test_mul_distributes_over_add_and_both_associate(ring):
    x, y, z = _triples(ring)
    close = torch.testing.assert_close
    close(ring.mul(x, ring.add(y, z)), ring.add(ring.mul(x, y), ring.mul(x, z)))
    close(ring.add(ring.add(x, y), z), ring.add(x, ring.add(y, z)))
    close(ring.mul(ring.mul(x, y), z), ring.mul(x, ring.mul(y, z)))


@each_ring
def test_zero_and_one(ring):
    x, *_ = _triples(ring)
    zero, one = torch.full_like(x, ring.zero), torch.full_like(x, ring.one)
    assert torch.equal(ring.add(zero, x), x) and torch.equal(ring.mul(one, x), x)
    assert torch.equal(ring.mul(x, zero), zero)


def test_the_log_of_a_sum_of_nothing_has_no_gradient():
    x = torch.tensor([-torch.inf, -torch.inf, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([-torch.inf, 1.0, -torch.inf, 1.0], dtype=torch.float64, requires_grad=True)
    out = LOG_SUM.add(x, y)
    assert out.tolist() == pytest.approx([-torch.inf, 1.0, 1.0, 1.0 + torch.tensor(2.0).log().item()])
    dx, dy = torch.autograd.grad(out.sum(), (x, y))
    assert dx.tolist() == [0, 0, 1, 0.5] and dy.tolist() == [0, 1, 0, 0.5]
