"""TTT-Linear and TTT-MLP against the authors' code (make_ttt.py), in its dual form and, step by step, its primal."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.descent.ttt_linear import TTTLinear
from recurra.mixers.descent.ttt_mlp import TTTMLP

CHUNK = 5
each_kind = pytest.mark.parametrize("kind", ["linear", "mlp"])


def by_the_authors(kind):
    weights, stored = numbers("ttt", f"{kind}.")
    cls, layers = (TTTLinear, ("1",)) if kind == "linear" else (TTTMLP, ("1", "2"))
    mixer = cls(8, heads=2, chunk=CHUNK, rate=1.0).double()
    # the bias is the last row
    memory = [torch.cat([weights[f"W{i}"], weights[f"b{i}"]], 1).flatten(1) for i in layers]
    mixer.load_state_dict(
        {
            "layer.project.weight": torch.cat([weights[f"{name}_proj.weight"] for name in "qkv"]),
            "layer.gate.weight": weights["learnable_ttt_lr_weight"][:, 0],
            "layer.gate.bias": weights["learnable_ttt_lr_bias"][:, 0],
            "layer.initial": torch.cat(memory, -1),
            "layer.answer": torch.stack([weights["ttt_norm_weight"], weights["ttt_norm_bias"]]),
            "layer.place": weights["learnable_token_idx"],
            "layer.norm.weight": weights["post_norm.weight"],
            "layer.norm.bias": weights["post_norm.bias"],
            "layer.out.weight": weights["o_proj.weight"],
        }
    )
    return mixer, stored


@each_kind
@pytest.mark.parametrize(("way", "form"), [("chunk", "dual"), ("loop", "primal")])
def test_equals_the_authors(kind, way, form):
    mixer, stored = by_the_authors(kind)
    with use(way), torch.no_grad():
        y, _ = mixer(stored["x"])
    assert_close(y, stored[form], rtol=1e-11, atol=1e-12)


@each_kind
def test_every_cut_equals_the_authors(kind):
    mixer, stored = by_the_authors(kind)
    for cut in range(1, stored["x"].shape[1]):
        first, state = mixer(stored["x"][:, :cut])
        second, _ = mixer(stored["x"][:, cut:], state)
        assert_close(torch.cat([first, second], 1), stored["dual"], rtol=1e-11, atol=1e-12)


@each_kind
def test_what_cannot_be_built_is_refused(kind):
    cls = TTTLinear if kind == "linear" else TTTMLP
    with pytest.raises(ValueError, match="a head has 3 features: they are turned in pairs"):
        cls(6, heads=2)
    with pytest.raises(ValueError, match="width is 9: it must be a multiple of heads, which is 2"):
        cls(9)
    with pytest.raises(ValueError, match="chunk is 0: it must be at least 1"):
        cls(8, chunk=0)
    with pytest.raises(ValueError, match=r"rate is -1\.0: it must be greater than 0"):
        cls(8, rate=-1.0)
