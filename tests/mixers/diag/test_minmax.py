"""MinMax against its package (tests/oracles/make_minmax.py), and the two things it promises: exactness, no fading."""

import pathlib

import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra.mixers.diag.minmax import MinMax

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "minmax.safetensors")
NAMES = {
    "norm_shift": "norm_conv",
    "norm_feed": "norm_ffn",
    "norm_units": "norm_neuron",
    "mix_shift": "conv.conv_fn",
    "up": "ffn.proj_up",
    "down": "ffn.proj_down",
    "ceiling": "neuron.r",
    "floor": "neuron.s",
    "gate": "neuron.o_g",
    "out": "neuron.o",
}


def test_equals_its_package():
    mixer = MinMax(8, units=6).double()
    mixer.load_state_dict(
        {f"{ours}.{p}": NUMBERS[f"weight.{theirs}.{p}"] for ours, theirs in NAMES.items() for p in ("weight", "bias")}
    )
    x = NUMBERS["x"]
    y, (past, h) = mixer(x)
    # their layer adds its input
    assert_close(x + y, NUMBERS["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, NUMBERS["past"], rtol=1e-12, atol=1e-12)
    assert_close(h, NUMBERS["h"], rtol=1e-12, atol=1e-12)


def test_a_state_comes_back_through_a_thousand_idle_steps_to_the_last_bit():
    mixer = MinMax(8)
    with torch.no_grad():
        mixer.ceiling.weight.zero_()
        mixer.floor.weight.zero_()
        mixer.ceiling.bias.fill_(9)
        mixer.floor.bias.fill_(-9)
    past, h = mixer.initial_state(1)
    h = torch.randn_like(h)
    state = (past, h)
    for _ in range(20):
        _, state = mixer(torch.randn(1, 50, 8), state)
    assert_close(state[1], h, rtol=0, atol=0)


def test_the_gradient_through_the_state_is_zero_or_one():
    mixer = MinMax(8)
    past, h = mixer.initial_state(1)
    h = torch.randn_like(h).requires_grad_()
    _, (_, last) = mixer(0.05 * torch.randn(1, 3, 8), (past, h))
    (grad,) = torch.autograd.grad(last.sum(), h)
    assert set(grad.flatten().tolist()) <= {0.0, 1.0}


def test_asymmetric_units_are_written_to_at_once():
    x = torch.randn(8, 1, 64)
    still = [(MinMax(64, asymmetric=way)(x)[1][1] == 0).float().mean().item() for way in (False, True)]
    assert still[0] > 0.15 and still[1] < 0.1


def test_deeper_models_start_closer_to_the_identity():
    shallow, deep = (MinMax(256, stack=stack).out.weight.std().item() for stack in (1, 8))
    assert_close(shallow, 2 / 16, rtol=0.02, atol=0)
    assert_close(deep, 2 / 128, rtol=0.02, atol=0)
