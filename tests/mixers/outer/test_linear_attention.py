"""Linear attention against flash-linear-attention (tests/oracles/make_fla.py), and against attention itself."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.linear_attention import LinearAttention
from recurra.parts.features import elu_plus_one

WEIGHTS, STORED = numbers("fla", "linear_attention.")


@pytest.fixture
def mixer():
    mixer = LinearAttention(8, heads=2).double()
    # theirs scales the query by 1 / sqrt(K), and with it the number that keeps the sum of the weights from zero
    mixer.epsilon = 1e-10 * mixer.size**0.5
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkv"]),
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, memory = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory[..., :-1], STORED["state.0"], rtol=1e-12, atol=1e-12)
    assert_close(memory[..., -1], STORED["state.1"][:, 0], rtol=1e-12, atol=1e-12)


def test_is_attention_with_another_similarity():
    mixer = LinearAttention(8).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    query, key, value = mixer.project(x).unflatten(-1, (3, 4, 2)).permute(2, 0, 3, 1, 4)
    similarity = (elu_plus_one(query) @ elu_plus_one(key).mT).tril()
    mean = similarity / similarity.sum(-1, keepdim=True) @ value
    # the paper's epsilon is in the one and not in the other
    assert_close(mixer(x)[0], mixer.out(mean.transpose(1, 2).flatten(2)), rtol=1e-5, atol=1e-5)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        LinearAttention(10)
