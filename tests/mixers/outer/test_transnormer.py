"""TransNormer against transformers' lightning attention (tests/oracles/make_transnormer.py), and at its last layer."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.transnormer import TransNormer
from recurra.parts.norms import rms

WEIGHTS, STORED = numbers("transnormer")


@pytest.fixture
def mixer():
    # theirs, of layer 1 in 5, adds a little to what divides and to what is left
    mixer = TransNormer(12, heads=3, height=1 / (4 + 1e-5) - 1e-5).double()
    mixer.epsilon = 1e-6
    # they keep each head's queries, keys and values together
    parts = WEIGHTS["qkv_proj.weight"].unflatten(0, (3, 3, 4)).transpose(0, 1).flatten(0, 2)
    mixer.load_state_dict(
        {
            "project.weight": torch.cat([parts, WEIGHTS["output_gate.weight"]]),
            "out.weight": WEIGHTS["out_proj.weight"],
        }
    )
    return mixer


@each_way
def test_equals_transformers(mixer, way):
    with use(way):
        y, memory = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(memory, STORED["state"], rtol=1e-12, atol=1e-12)


def test_the_last_layer_forgets_nothing():
    mixer = TransNormer(8, heads=2, height=1.0).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    query, key, value, gate = mixer.project(x).chunk(4, -1)
    query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (F.silu(query), F.silu(key), value))
    read = ((query @ key.mT).tril() @ value).transpose(1, 2).flatten(2)
    assert_close(mixer(x)[0], mixer.out(gate * rms(read, 1e-8)))


def test_the_height_is_the_layers_place_in_its_stack():
    assert [TransNormer(8, layer=layer, depth=3).height for layer in range(3)] == [0.0, 0.5, 1.0]
    assert TransNormer(8, layer=2, depth=3, height=0.25).height == 0.25


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        TransNormer(10)
    with pytest.raises(ValueError, match=r"height is 2\.0: it must lie between 0, the first layer, and 1, the last"):
        TransNormer(8, height=2.0)
    with pytest.raises(ValueError, match="layer is 2: with a depth of 2 it must be at least 0 and less than that"):
        TransNormer(8, layer=2, depth=2)
