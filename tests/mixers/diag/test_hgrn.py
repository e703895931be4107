"""HGRN against the authors' code (tests/oracles/make_gates.py), and where its bound stands in a stack."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.hgrn import HGRN
from recurra.mixers.outer.hgrn2 import HGRN2

WEIGHTS, STORED = numbers("gates", "hgrn.")


@pytest.fixture
def mixer():
    mixer = HGRN(8, lower_bound=0.4).double()
    names = {"forget": "lambda_proj", "gate": "gate", "norm": "norm", "out": "out_proj"}
    ours = {f"{our}.{kind}": WEIGHTS[f"{their}.{kind}"] for our, their in names.items() for kind in ("weight", "bias")}
    # theirs has the parts of a number side by side
    ours |= {
        f"candidate.{kind}": WEIGHTS[f"input_proj.{kind}"].unflatten(0, (8, 2)).transpose(0, 1).flatten(0, 1)
        for kind in ("weight", "bias")
    }
    mixer.load_state_dict(ours | {"angle": WEIGHTS["theta"].flatten()})
    return mixer


@each_way
def test_equals_the_authors_code(mixer, way):
    with use(way):
        y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)


def test_no_unit_keeps_less_than_the_bound():
    records = []
    mixer = HGRN(16, lower_bound=0.9)
    mixer.scan.register_forward_pre_hook(lambda _, inputs: records.append(inputs[0]))
    mixer(100 * torch.randn(1, 20, 16))
    kept = records[0].decay.abs()
    assert kept.min() >= 0.9 - 1e-6 and kept.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", [HGRN, HGRN2])
def test_the_bound_is_the_layers_share_of_its_stack(kind):
    assert [kind(8, layer=layer, depth=4).lower_bound for layer in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert kind(8, layer=3, depth=4, lower_bound=0.1).lower_bound == 0.1
    with pytest.raises(ValueError, match="layer is 4: with a depth of 4 it must be at least 0 and less than that"):
        kind(8, layer=4, depth=4)
    with pytest.raises(ValueError, match=r"lower_bound is 1\.0: it must be at least 0 and below 1"):
        kind(8, lower_bound=1.0)
