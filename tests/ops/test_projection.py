"""What projections owe beyond the engine tests: exponentials of any span, as exact as torch's."""

import pytest
import torch
from torch.testing import assert_close

from recurra.ops.projection.loop import changes
from recurra.parts.hippo import delay, legs


@pytest.mark.parametrize("generator", [legs, delay])
def test_the_change_of_a_span_is_an_exponential_less_one(generator):
    matrix, span = generator(16), torch.tensor([[1e-9, 1e-3, 0.1, 0.7, 5.0]], dtype=torch.float64)
    got = torch.stack(list(changes(matrix, span)), 1)[0, :, 0]
    want = torch.linalg.matrix_exp(matrix * span[0, :, None, None]) - torch.eye(16, dtype=torch.float64)
    assert_close(got, want, rtol=1e-6, atol=1e-12)
    # the shortest span's change keeps its digits: to first order it is the generator
    assert_close(got[0], 1e-9 * matrix, rtol=1e-5, atol=1e-13)


def test_an_endless_span_forgets_all():
    (change,) = changes(legs(4), torch.full((1, 1), torch.inf, dtype=torch.float64))
    assert_close(change[0, 0], -torch.eye(4, dtype=torch.float64))
