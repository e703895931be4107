"""Titans against titans-pytorch (make_titans.py): chunks of one step in batches of C are the rule of the paper."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.descent.titans import Titans

CHUNK = 5


def by_titans_pytorch():
    weights, stored = numbers("titans")
    # its loss is a mean over a head's four features, not half of a sum
    mixer = Titans(8, heads=2, expand=3, chunk=CHUNK, rate=2 / 4).double()
    # one tap, the present, of the convolution that it does not have
    conv = torch.zeros(24, 4, dtype=torch.float64)
    conv[:, -1] = 1
    gates = [
        [weights[f"to_{name}.0.{kind}"] for name in ("adaptive_step", "decay_factor", "momentum")] for kind in KINDS
    ]
    memory = [weights[f"memory_model_parameters.{i}"].flatten(1) for i in range(2)]
    mixer.load_state_dict(
        {
            "learner.project.weight": torch.cat([weights[f"to_{name}.0.weight"] for name in PROJECTIONS]),
            "learner.conv.weight": conv,
            "learner.gates.weight": torch.cat(gates[0]),
            "learner.gates.bias": torch.cat(gates[1]),
            "learner.initial": torch.cat(memory, -1),
            "learner.norm.weight": 1 + weights["multihead_rmsnorm.gamma"][0, 0],
            # a gate for a head there, for a feature here
            "learner.gate.weight": weights["retrieve_gate.0.weight"].repeat_interleave(4, 0),
            "learner.out.weight": weights["combine_heads.weight"],
        }
    )
    return mixer, stored


KINDS, PROJECTIONS = ("weight", "bias"), ("queries", "keys", "values")


def flat(stored, name):
    return torch.cat([stored[f"{name}.{i}"].flatten(2) for i in range(2)], -1)


@each_way
def test_equals_titans_pytorch(way):
    mixer, stored = by_titans_pytorch()
    with use(way):
        y, (_, start, moved, kept, _, momentum) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(kept[..., None] * start + moved, flat(stored, "memory"), rtol=1e-12, atol=1e-12)
    assert_close(momentum, flat(stored, "momentum"), rtol=1e-12, atol=1e-12)


def test_single_steps_equal_titans_pytorch():
    mixer, stored = by_titans_pytorch()
    state, reads = None, []
    with torch.no_grad():
        for x in stored["x"].split(1, 1):
            read, state = mixer(x, state)
            reads.append(read)
    assert_close(torch.cat(reads, 1), stored["y"], rtol=1e-12, atol=1e-12)


def test_the_chunk_is_part_of_the_function():
    mixer, stored = by_titans_pytorch()
    other = Titans(**{**mixer.config, "chunk": CHUNK + 1}).double()
    other.load_state_dict(mixer.state_dict())
    y = other(stored["x"])[0]
    assert_close(y[:, :CHUNK], stored["y"][:, :CHUNK], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(y[:, CHUNK:], stored["y"][:, CHUNK:], rtol=1e-6)


def test_it_forgets_little_at_the_start():
    forget = Titans(8).learner.gates.bias[4:8].sigmoid()
    assert_close(forget[[0, -1]], torch.tensor([0.0067, 0.000335]), rtol=0.01, atol=0)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"width": 10}, "width is 10: it must be a multiple of heads, which is 4"),
    ({"depth": 0}, "depth is 0: it must be at least 1"),
    ({"expand": 0}, "expand is 0: it must be at least 1"),
    ({"chunk": 0}, "chunk is 0: it must be at least 1"),
    ({"rate": 0.0}, r"rate is 0\.0: it must be greater than 0"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Titans(**{"width": 8, **wrong})
