"""CfC against the authors' package (tests/oracles/make_ncps.py), at irregular steps."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.cfc import CfC

MODES = {"gated": "default", "no_gate": "no_gate", "pure": "pure"}
HEADS = ("ff1", "ff2", "time_a", "time_b")


def theirs(form):
    """The mixer with their weights, and their numbers."""
    weights, stored = numbers("ncps", f"{MODES[form]}.")
    mixer = CfC(8, form=form).double()
    # each of their heads reads x and h side by side
    heads = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in HEADS if f"{name}.weight" in weights]
    entering, recurrent = zip(*(weight.split([8, 8], 1) for weight, _ in heads), strict=True)
    given = {"input.weight": torch.cat(entering), "input.bias": torch.cat([bias for _, bias in heads])}
    given["weight"] = torch.stack(recurrent)[:, None]
    if form == "pure":
        given["params"] = torch.cat([weights["w_tau"], weights["A"]])
    mixer.load_state_dict(given)
    return mixer, stored


@pytest.mark.parametrize("way", [contextlib.nullcontext, lambda: use("loop")], ids=["fastest", "loop"])
@pytest.mark.parametrize("form", MODES)
def test_equals_ncps(form, way):
    mixer, stored = theirs(form)
    with way():
        y, (last,) = mixer(stored["x"], None, Clock(dt=stored["dt"]))
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, stored["last"], rtol=1e-12, atol=1e-12)


def test_with_time_it_goes_from_one_head_to_the_other():
    mixer, stored = theirs("gated")
    with torch.no_grad():
        # the third gate is how fast: make it positive
        mixer.input.bias[16:24] += 20
    x = stored["x"][:, :1]
    f, g, *_ = mixer.input(x).chunk(4, -1)
    early, late = (mixer(x, None, Clock(dt=torch.full((2, 1), dt).double()))[0] for dt in (1e-9, 1e3))
    share = torch.sigmoid(mixer.input(x).chunk(4, -1)[3])
    assert_close(late, g.tanh())
    assert_close(early, (1 - share) * f.tanh() + share * g.tanh(), rtol=1e-6, atol=1e-6)


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="form is 'mixed': it must be one of gated, no_gate, pure"):
        CfC(8, form="mixed")
