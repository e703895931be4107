"""MesaNet against flash-linear-attention's exact solver (tests/oracles/make_outer_fla.py), and as a regression."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.mesanet import MesaNet

WEIGHTS, STORED = numbers("outer_fla", "mesanet.")


@pytest.fixture
def mixer():
    mixer = MesaNet(8, heads=2).double()
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "qkv"]),
            "gates.weight": torch.cat([WEIGHTS[f"{name}_proj.weight"] for name in "ab"]),
            "gates.bias": torch.cat([WEIGHTS[f"{name}_proj.bias"] for name in "ab"]),
            "conv.weight": torch.cat([WEIGHTS[f"{name}_conv1d.weight"][:, 0] for name in "qk"]),
            "ridge": WEIGHTS["lambda_params"].view(2, 4),
            "norm.weight": WEIGHTS["o_norm.weight"],
            "out.weight": WEIGHTS["o_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_flash_linear_attention(mixer, way):
    with use(way):
        y, (_, memory) = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, torch.cat([STORED["state.0"], STORED["state.1"]], -1), rtol=1e-12, atol=1e-12)


def test_what_is_read_is_the_regression_of_values_on_keys(mixer):
    seen = []
    mixer.scan.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output[0])))
    mixer(torch.randn(1, 12, 8, dtype=torch.float64))
    (query, key, value, write, ridge, log_decay, _), read = seen[0]
    for head in range(2):
        left = log_decay[0, :, head].cumsum(0)
        root = (write[0, :, head] * (left[-1] - left).exp()).sqrt()[:, None]
        # rows that ask for zero under the square root of the ridge
        rows = torch.cat([root * key[0, :, head], ridge[head].sqrt().diag()])
        wanted = F.pad(root * value[0, :, head], (0, 0, 0, 4))
        fit = torch.linalg.lstsq(rows, wanted).solution
        assert_close(read[0, -1, head], query[0, -1, head] @ fit)


def test_it_starts_with_a_ridge_of_one():
    assert_close(F.softplus(MesaNet(8).ridge) + 0.25, torch.ones(4, 2))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        MesaNet(10)
