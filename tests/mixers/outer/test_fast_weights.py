"""Fast weights: no package has them alone, so two derivations: their sum written out, and what one step writes."""

import pytest
import torch
from oracles.stored import each_way
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.fast_weights import FastWeights


@each_way
@pytest.mark.parametrize("heads", [1, 2])
def test_equals_the_sum_of_its_programs(heads, way):
    mixer = FastWeights(8, heads=heads).double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    source, target = mixer.slow(x).chunk(2, -1)
    source, target, inputs = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (source, target, x))
    # y_t = sum over j of (a_j' x_t) b_j
    y = ((inputs @ source.mT).tril() @ target).transpose(1, 2).flatten(2)
    weights = source.mT @ target
    with use(way):
        got, state = mixer(x)
    assert_close(got, y)
    assert_close(state, weights)


def test_the_fast_network_is_the_weights_that_the_slow_one_wrote():
    mixer = FastWeights(8).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    _, before = mixer(x[:, :4])
    y, after = mixer(x[:, 4:], before)
    assert_close(y[0, 0], x[0, 4] @ after[0, 0])
    assert torch.linalg.matrix_rank(after - before).item() == 1


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        FastWeights(10, heads=4)
