"""AFT, simple and with a window of biases, against labml (tests/oracles/make_aft.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.outer.aft import AFT


def by_labml(name, window):
    weights, stored = numbers("aft", f"{name}.")
    mixer = AFT(8, window=window).double()
    state = {
        "project.weight": torch.cat([weights[f"{part}.weight"] for part in ("query", "key", "value")]),
        "out.weight": weights["output.weight"],
    }
    mixer.load_state_dict(state | ({"bias": weights["bias"]} if window else {}))
    return mixer, stored


@each_way
@pytest.mark.parametrize("name, window", [("simple", 0), ("local", 3)])
def test_equals_labml(name, window, way):
    mixer, stored = by_labml(name, window)
    with use(way):
        y, _ = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (7,), (0, 10, 10)])
def test_a_cut_changes_nothing_inside_a_window(cuts):
    mixer, stored = by_labml("local", 3)
    x = stored["x"].requires_grad_()
    clock = Clock(torch.rand(2, 20) < 0.2, torch.rand(2, 20) < 0.7)
    whole, last = mixer(x, None, clock)
    state, pieces = None, []
    for start, stop in zip((0, *cuts), (*cuts, 20), strict=True):
        y, state = mixer(x[:, start:stop], state, clock.cut(start, stop))
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    assert_close(state, last)
    weight = torch.randn_like(whole)
    wanted = [x, *mixer.parameters()]
    grads = torch.autograd.grad((whole * weight).sum(), wanted)
    for one, other in zip(torch.autograd.grad((torch.cat(pieces, 1) * weight).sum(), wanted), grads, strict=True):
        assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_reset_empties_the_window():
    mixer, stored = by_labml("local", 3)
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[:, 11] = True
    y, last = mixer(stored["x"], None, Clock(reset))
    fresh, end = mixer(stored["x"][:, 11:])
    assert_close(y[:, 11:], fresh)
    assert_close(last, end)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="window is -1: it must be at least 0"):
        AFT(8, window=-1)
