"""Blocks of time after those before them, of which each is in several: values, and a gradient that is their sum."""

import pytest
import torch
from torch.testing import assert_close

from recurra.parts.window import beside


@pytest.mark.parametrize("before", [0, 1, 3])
def test_every_block_stands_after_those_before_it(before):
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    y = beside(x, before)
    for place in range(5 - before):
        assert torch.equal(y[:, place], x[:, place : place + before + 1].flatten(1, 2))
    assert_close(
        torch.autograd.grad(y.sin().sum(), x)[0],
        torch.autograd.grad(x.unfold(1, before + 1, 1).sin().sum(), x)[0],
    )
