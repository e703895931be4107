"""minGRU against two packages (tests/oracles/make_mingru.py), from the start and from a state."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra.mixers.diag.mingru import MinGRU

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "mingru.safetensors")


def positive():
    mixer = MinGRU(8, expand=2, positive=True).double()
    candidate, update = NUMBERS["positive.weight.to_hidden_and_gate.weight"].chunk(2)
    zero = torch.zeros(16, dtype=torch.float64)
    weights = {"candidate.weight": candidate, "candidate.bias": zero, "update.weight": update, "update.bias": zero}
    mixer.load_state_dict(weights | {"out.weight": NUMBERS["positive.weight.to_out.weight"]})
    return mixer


def plain():
    mixer = MinGRU(8).double()
    names = {"update": "linear_z", "candidate": "linear_h"}
    mixer.load_state_dict(
        {
            f"{ours}.{p}": NUMBERS[f"plain.weight.{theirs}.{p}"]
            for ours, theirs in names.items()
            for p in ("weight", "bias")
        }
    )
    return mixer


@pytest.mark.parametrize("form", [positive, plain])
def test_equals_its_package(form):
    mixer, x, start = form(), NUMBERS["x"], NUMBERS["start"][:, 0]
    assert_close(mixer(x)[0], NUMBERS[f"{form.__name__}.y"], rtol=1e-12, atol=1e-12)
    start = start[:, : mixer.update.out_features].contiguous()
    assert_close(mixer(x, start)[0], NUMBERS[f"{form.__name__}.from"], rtol=1e-12, atol=1e-12)


def test_the_state_is_a_mean_of_candidates():
    mixer = MinGRU(8)
    with torch.no_grad():
        mixer.candidate.weight.zero_()
        mixer.candidate.bias.fill_(3)
    _, state = mixer(torch.randn(2, 400, 8))
    assert_close(state, torch.full((2, 8), 3.0))


def test_an_expansion_below_one_is_refused():
    with pytest.raises(ValueError, match="expand is 0"):
        MinGRU(8, expand=0)
