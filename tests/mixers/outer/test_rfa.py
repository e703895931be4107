"""Random feature attention against its authors' code (tests/oracles/make_rfa.py) and the kernel it estimates.

Theirs has no gate: ours equals it where the gate is all but open. With a gate it is checked against its definition.
"""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.outer.rfa import RFA
from recurra.ops.waves import features

WEIGHTS, STORED = numbers("rfa")


@pytest.fixture
def mixer():
    mixer = RFA(8, heads=2, features=6).double()
    both = {f"project.{kind}": torch.cat([WEIGHTS[f"{n}_proj.{kind}"] for n in "qkv"]) for kind in ("weight", "bias")}
    mixer.load_state_dict(
        both
        | {"out.weight": WEIGHTS["out_proj.weight"], "out.bias": WEIGHTS["out_proj.bias"]}
        | {"spread": WEIGHTS["sigma"][:, 0], "waves": STORED["waves"]}
        | {"gate.weight": torch.zeros(2, 8), "gate.bias": torch.full((2,), 36.0)}
    )
    mixer.least = -torch.inf
    return mixer


@each_way
def test_equals_the_authors_code_where_nothing_fades(mixer, way):
    with use(way):
        y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-10, atol=1e-10)


def test_is_attention_with_a_gate_and_an_estimated_similarity():
    mixer = RFA(8, heads=2).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    query, key, value = mixer.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    query, key = (features(part.transpose(1, 2), mixer.waves).transpose(1, 2) / 32**0.5 for part in (query, key))
    gate = mixer.gate(x).sigmoid()[0].T
    left = torch.stack(
        [torch.stack([gate[:, j + 1 : t + 1].prod(1) * (j <= t) for j in range(9)], 1) for t in range(9)], 1
    )
    weights = query @ key.mT * left * (1 - gate)[:, None]
    mean = weights @ value / weights.sum(-1, keepdim=True).clamp_min(0.1)
    assert_close(mixer(x)[0], mixer.out(mean.transpose(1, 2).flatten(2)))


def test_features_estimate_the_gaussian_kernel():
    mixer = RFA(16, heads=1, features=20000)
    x = torch.randn(1, 6, 1, 16)
    waves = features(x, mixer.waves)[0, :, 0] / 20000**0.5
    normal = F.normalize(x[0, :, 0], dim=-1)
    kernel = (-torch.cdist(normal, normal).square() / 2).exp()
    assert_close(waves @ waves.T, kernel, rtol=0, atol=0.03)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        RFA(10)
    with pytest.raises(ValueError, match="features is 0: it must be at least 1"):
        RFA(8, features=0)
