"""RetNet against torchscale (tests/oracles/make_retnet.py); its position counts real steps, and does not tire."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.outer.retnet import RetNet

WEIGHTS, STORED = numbers("retnet")
CUT = 11


@pytest.fixture
def mixer():
    mixer = RetNet(12, heads=3).double()
    # theirs was run with zero, so that the scale of what is normalised, which differs, cancels exactly
    mixer.epsilon = 0.0
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkvg"]),
            "out.weight": WEIGHTS["out_proj.weight"],
        }
    )
    return mixer


@each_way
@pytest.mark.parametrize("form", ["y", "stepped"])
def test_equals_torchscale(mixer, way, form):
    with use(way):
        y, (memory, position) = mixer(STORED["x"])
    assert_close(y, STORED[form], rtol=1e-12, atol=1e-12)
    # they keep values first
    assert_close(memory, STORED["memory"].mT, rtol=1e-12, atol=1e-12)
    assert position.tolist() == [25, 25]


def test_many_tokens_continue_from_a_carried_state(mixer):
    x = STORED["x"]
    _, state = mixer(x[:, :CUT])
    y, (memory, position) = mixer(x[:, CUT:], state)
    assert_close(y, STORED["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(memory, STORED["memory"].mT, rtol=1e-12, atol=1e-12)
    assert position.tolist() == [25, 25]


def test_packed_sequences_equal_torchscale_on_each(mixer):
    y, (_, position) = mixer(STORED["x"].flatten(0, 1)[None], None, Clock.packed([0, 25, 50]))
    assert_close(y[0], STORED["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)
    assert position.tolist() == [25]


def test_the_position_counts_only_steps_that_happened(mixer):
    x = torch.randn(3, 6, 12, dtype=torch.float64)
    _, state = mixer(x)
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[1, 3] = True
    valid = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    _, (_, position) = mixer(x, state, Clock(reset, valid))
    assert position.tolist() == [10, 2, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_after_a_thousand_million_steps_only_the_distance_matters(dtype):
    mixer = RetNet(16).to(dtype)
    x = torch.randn(1, 40, 16, dtype=dtype)
    memory, position = mixer.initial_state(1)
    here, _ = mixer(x)
    there, (_, after) = mixer(x, (memory, position + 10**9))
    assert after.tolist() == [10**9 + 40]
    # 1e9 radians in float64 are known to 1e-7
    assert_close(there, here, rtol=1e-5, atol=1e-6)


def test_it_starts_as_the_authors_code_does():
    mixer = RetNet(128)
    for weight, fan_out in zip(mixer.project.weight.split([128, 128, 256, 256]), (128, 128, 256, 256), strict=True):
        bound = 2**-2.5 * (6 / (128 + fan_out)) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound
    assert_close(mixer._log_decay(mixer.initial_state(1)[0]).exp(), 1 - 2.0 ** -torch.arange(5, 9))


def test_a_width_that_cannot_be_rotated_in_pairs_is_refused():
    with pytest.raises(ValueError, match="width is 12: it must be a multiple of twice heads, which is 8"):
        RetNet(12)
