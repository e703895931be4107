"""The weighted token shift, block-diagonal maps and the norm of heads against what they say they are."""

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.parts.blocks import BlockLinear
from recurra.parts.lerp import TokenShift, fading, looking_back, place, present, zigzag
from recurra.parts.norms import HeadNorm


def test_a_share_of_one_is_the_step_before():
    x, past = torch.randn(2, 5, 3), torch.randn(2, 3)
    (now, before), last = TokenShift(torch.zeros(3), torch.ones(3))(x, past, None)
    assert_close(now, x)
    assert_close(before, torch.cat([past[:, None], x[:, :-1]], 1))
    assert_close(last, x[:, -1])


def test_where_shares_and_decays_start():
    assert place(0, 1) == (0.0, 1.0) and place(5, 6) == (1.0, 1 - 5 / 6)
    assert_close(looking_back(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25]))
    assert_close(looking_back(4, 0.5, 0.25)[0], torch.tensor(0.75))
    assert_close(fading(3, -5.0, 8.0, 0.0), torch.tensor([-5.0, -5 + 8 * 0.5**0.7, 3.0]))
    assert_close(fading(1, -5.0, 8.0, 0.0), torch.tensor([-5.0]))
    assert_close(present(3, 0.5), torch.tensor([0.5, 0.35, -0.1]))
    assert_close(zigzag(4, 0.5), torch.tensor([0.0, 0.5, -0.5, 0.0]))


def test_blocks_are_a_matrix_with_zeros():
    linear = BlockLinear(12, 3)
    x = torch.randn(2, 5, 12)
    assert_close(linear(x), F.linear(x, torch.block_diag(*linear.weight)))


def test_heads_are_normalised_each_by_itself():
    norm = HeadNorm(12, 3, bias=True, epsilon=1e-3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    heads = x.unflatten(-1, (3, 4))
    want = (heads - heads.mean(-1, keepdim=True)) / (heads.var(-1, keepdim=True, correction=0) + 1e-3).sqrt()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    assert_close(norm(x), want.flatten(-2) * norm.weight + norm.bias)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
