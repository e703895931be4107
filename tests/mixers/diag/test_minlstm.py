"""minLSTM against a package (tests/oracles/make_minlstm.py), in parallel and step by step."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra.mixers.diag.minlstm import MinLSTM

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "minlstm.safetensors")
NAMES = ("candidate", "forget", "input")


@pytest.mark.parametrize("form", ["whole", "steps"])
def test_equals_the_package(form):
    mixer = MinLSTM(8).double()
    zero, half = torch.zeros(8, dtype=torch.float64), torch.full((8,), 0.5, dtype=torch.float64)
    for name, weight, bias in zip(NAMES, NUMBERS["weight"].chunk(3), (half, zero, zero), strict=True):
        getattr(mixer, name).load_state_dict({"weight": weight, "bias": bias})
    assert_close(mixer(NUMBERS["x"])[0], NUMBERS[form], rtol=1e-12, atol=1e-12)


def test_shares_stay_exact_where_both_gates_close():
    mixer = MinLSTM(4)
    with torch.no_grad():
        for gate in (mixer.forget, mixer.input):
            gate.weight.zero_()
            gate.bias.fill_(-200.0)
        mixer.candidate.weight.zero_()
        mixer.candidate.bias.fill_(1.0)
    y, _ = mixer(torch.randn(1, 3, 4))
    assert_close(y[0, :, 0], torch.tensor([0.5, 0.75, 0.875]))
