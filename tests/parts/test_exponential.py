"""Exponentially weighted sums against the sums themselves, with scores of any size and rows that never began."""

import pytest
import torch
from oracles.stored import each_way
from torch.testing import assert_close

from recurra import Clock, use
from recurra.parts.exponential import ExponentialSum, mean


def start(batch, size, width, dtype=torch.float64):
    return torch.full((batch, size), -torch.inf, dtype=dtype), torch.zeros(batch, size, width + 1, dtype=dtype)


def dense(score, value, log_decay):
    """The mean of every prefix, by a softmax over pairs of steps."""
    total = log_decay.cumsum(1)
    pairs = score[:, None] + total[:, :, None] - total[:, None]
    steps = score.shape[1]
    later = torch.ones(steps, steps, dtype=torch.bool).triu(1)[..., None]
    return torch.einsum("btjh,bjhv->bthv", pairs.masked_fill(later, -torch.inf).softmax(2), value)


@each_way
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (100.0, 0.0), (1.0, -2000.0), (1.0, 2000.0)])
def test_the_mean_is_a_softmax(way, scale, shift):
    score = shift + scale * torch.randn(2, 23, 3, dtype=torch.float64)
    value = torch.randn(2, 23, 3, 4, dtype=torch.float64)
    log_decay = -torch.rand(2, 23, 3, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (score, value, log_decay)]
    with use(way):
        read, _, _ = ExponentialSum()(score, value, log_decay, start(2, 3, 4), None)
    want = dense(score, value, log_decay)
    assert_close(mean(read), want, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(want)
    grads = zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (mean(read), want)), strict=True)
    for ours, theirs in grads:
        assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@each_way
def test_rows_that_never_began_have_no_nan(way):
    score = 200 * torch.ones(3, 6, 2)
    value = torch.randn(3, 6, 2, 1)
    log_decay = -torch.rand(3, 6, 2)
    inputs = [x.requires_grad_() for x in (score, value, log_decay)]
    valid = torch.arange(6) < torch.tensor([0, 3, 6])[:, None]
    with use(way):
        read, _, (peak, sums) = ExponentialSum()(
            score, value, log_decay, start(3, 2, 1, torch.float32), Clock(None, valid)
        )
    assert (peak[0] == -torch.inf).all() and (sums[0] == 0).all()
    for grad in torch.autograd.grad(read[valid].sum() + sums[1:].sum(), inputs):
        assert torch.isfinite(grad).all() and (grad[0] == 0).all()


def test_what_the_peak_loses_to_rounding_is_made_good():
    """A decay that is less than the peak's last bit still fades what came before, in float32 as in float64."""
    score = torch.cat([torch.full((1, 1, 1), 9.0), torch.full((1, 9999, 1), -20.0)], 1)
    log_decay = torch.full((1,), -3e-7)
    value = torch.zeros(1, 10000, 1, 1)
    reads = []
    for dtype in (torch.float32, torch.float64):
        read, scaled, _ = ExponentialSum()(
            score.to(dtype), value.to(dtype), log_decay.to(dtype), start(1, 1, 1, dtype), None
        )
        reads.append((read[0, -1, 0, 1].double().log() + scaled.peak[0, -1, 0].double()).item())
    # what is left is the factor's own rounding, some 1e-9 a step
    assert abs(reads[0] - reads[1]) < 5e-5 and abs(reads[1] - (9 - 3e-3)) < 1e-6
