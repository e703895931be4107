"""Noise that is a function: normal, independent, and the same wherever it is asked for."""

import torch
from torch.testing import assert_close

from recurra.parts.noise import normal


def test_it_is_standard_normal_and_independent():
    count = torch.arange(400).expand(20, -1)
    x = normal(torch.arange(20), count, 16)
    assert x.shape == (20, 400, 16) and torch.isfinite(x).all()
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01 and abs(x.pow(4).mean() - 3) < 0.1
    # neighbours in key, in count and in unit
    for one, other in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x[..., 1:], x[..., :-1])):
        assert abs((one * other).mean()) < 0.015


def test_it_depends_on_key_and_count_alone():
    key, count = torch.tensor([3, 7]), torch.tensor([[0, 1, 2], [5, 6, 9]])
    x = normal(key, count, 4)
    assert_close(normal(key[1:], count[1:, 2:], 4), x[1:, 2:], rtol=0, atol=0)
