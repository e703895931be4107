"""Aaren against torch's own softmax over every prefix: the two are derived apart, there is no package to ask."""

import pytest
import torch
from oracles.stored import each_way
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.aaren import Aaren


@each_way
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_equals_attention_with_one_query(way, scale):
    mixer = Aaren(8, heads=2).double()
    x = scale * torch.randn(2, 21, 8, dtype=torch.float64)
    key, value = mixer.project(x).view(2, 21, 2, 2, 4).permute(2, 0, 3, 1, 4)
    query = mixer.query[None, :, None].expand(2, 2, 21, 4)
    want = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    with use(way):
        y, _ = mixer(x)
    assert_close(y, mixer.out(want.transpose(1, 2).flatten(2)), rtol=1e-12, atol=1e-12 * scale)


def test_the_first_step_is_its_own_value():
    mixer = Aaren(8).double()
    x = torch.randn(3, 1, 8, dtype=torch.float64)
    assert_close(mixer(x)[0], mixer.out(mixer.project(x)[..., 8:]))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        Aaren(10)
