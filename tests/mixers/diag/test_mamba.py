"""Mamba against transformers (tests/oracles/make_mamba.py), and where transformers' own continuation is wrong."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.diag.mamba import Mamba

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "mamba.safetensors")
CUT = 5


@pytest.fixture
def mixer():
    mixer = Mamba(8, units=3, rank=2).double()
    theirs = {name.removeprefix("weight."): p for name, p in NUMBERS.items() if name.startswith("weight.")}
    mixer.load_state_dict(
        {
            "inputs.weight": theirs["in_proj.weight"],
            "conv.weight": theirs["conv1d.weight"][:, 0],
            "conv.bias": theirs["conv1d.bias"],
            "select.weight": theirs["x_proj.weight"],
            "step.weight": theirs["dt_proj.weight"],
            "step.bias": theirs["dt_proj.bias"],
            "log_rate": theirs["A_log"],
            "skip": theirs["D"],
            "out.weight": theirs["out_proj.weight"],
        }
    )
    return mixer


def test_equals_transformers(mixer):
    y, (past, h) = mixer(NUMBERS["x"])
    assert_close(y, NUMBERS["y"], rtol=1e-12, atol=1e-12)
    assert_close(h, NUMBERS["h"], rtol=1e-12, atol=1e-12)
    # they keep as many inputs as the convolution has taps, features first
    assert_close(past, NUMBERS["past"][:, :, 1:].mT, rtol=1e-12, atol=1e-12)


def test_many_tokens_continue_where_transformers_begins_again(mixer):
    x = NUMBERS["x"]
    _, state = mixer(x[:, :CUT])
    continued, (_, h) = mixer(x[:, CUT:], state)
    assert_close(continued, NUMBERS["y"][:, CUT:], rtol=1e-12, atol=1e-12)
    assert_close(h, NUMBERS["h"], rtol=1e-12, atol=1e-12)
    # the number that makes this test worth having: theirs is off by more than any rounding
    assert (NUMBERS["continued"] - NUMBERS["y"][:, CUT:]).abs().max() > 1e-4


def test_packed_sequences_equal_transformers_on_each(mixer):
    x = NUMBERS["x"]
    packed, _ = mixer(x.flatten(0, 1)[None], None, Clock.packed([0, 11, 22]))
    assert_close(packed[0], NUMBERS["y"].flatten(0, 1), rtol=1e-12, atol=1e-12)


def test_it_starts_as_the_paper_says():
    mixer = Mamba(256)
    assert_close(mixer.log_rate.exp(), torch.arange(1.0, 17).expand(512, -1))
    step = F.softplus(mixer.step.bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
    assert_close(step.log().mean().exp().item(), 1e-2, rtol=0.2, atol=0)
    assert mixer.step.in_features == 16 and mixer.step.weight.abs().max() <= 16**-0.5
    assert (mixer.skip == 1).all() and set(mixer.undecayed) <= {name for name, _ in mixer.named_parameters()}
