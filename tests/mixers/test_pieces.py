"""A long sequence of which only numbers are wanted is mixed piece by piece, and nobody can tell."""

import pytest
import torch
from torch.testing import assert_close

from recurra import MIXERS, Clock, use
from recurra.mixers import base
from recurra.state import leaves

STEPS, LEAST = 23, 5


@pytest.fixture
def lengths(monkeypatch):
    """How many steps every call of `mix` is given, where pieces are of five."""
    monkeypatch.setattr(base, "PIECE", 1)
    monkeypatch.setattr(base, "LEAST", LEAST)
    seen = []

    def listen(mixer):
        mix = mixer.mix
        monkeypatch.setattr(mixer, "mix", lambda x, *rest: (seen.append(x.shape[1]), mix(x, *rest))[1])
        return mixer

    return listen, seen


def _clock(parts):
    valid = torch.rand(3, STEPS) < 0.7
    # one row ends before the last pieces begin, one never happens
    valid[0, 6:], valid[1] = False, False
    every = {"reset": torch.rand(3, STEPS) < 0.2, "valid": valid, "dt": torch.rand(3, STEPS) + 0.5}
    return Clock(**{part: every[part] for part in parts}) if parts else None


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("parts", [(), ("reset",), ("dt",), ("reset", "valid", "dt")])
@pytest.mark.parametrize("name", ["s5", "cfc"])
def test_pieces_are_the_whole(name, parts, given, lengths):
    listen, seen = lengths
    mixer, x, clock = listen(MIXERS[name](16)), torch.randn(3, STEPS, 16), _clock(parts)
    state = mixer(torch.randn(3, 2, 16))[1] if given else None
    seen.clear()
    whole = mixer(x, state, clock)
    assert seen == [STEPS]
    with torch.no_grad():
        pieces = mixer(x, state, clock)
    assert seen == [STEPS, *[LEAST] * 4, 3]
    for one, other in zip(leaves(pieces), leaves(whole), strict=True):
        assert_close(one, other)


@torch.no_grad()
def test_what_another_layer_gives_is_cut_alike(lengths):
    listen, seen = lengths
    mixer, x, first = (
        listen(MIXERS["rwkv7"](16, layer=1, depth=2)),
        torch.randn(2, STEPS, 16),
        torch.randn(2, STEPS, 16),
    )
    pieces = mixer(x, None, None, first)
    assert max(seen) == LEAST
    with torch.enable_grad():
        whole = mixer(x, None, None, first)
    for one, other in zip(leaves(pieces), leaves(whole), strict=True):
        assert_close(one, other)


@torch.no_grad()
def test_an_implementation_that_is_asked_for_gets_all_at_once(lengths):
    listen, seen = lengths
    mixer = listen(MIXERS["s5"](16))
    with use("loop"):
        mixer(torch.randn(2, STEPS, 16))
    assert seen == [STEPS]


@torch.no_grad()
def test_hooks_within_see_whole_sequences(lengths):
    listen, seen = lengths
    mixer, records = listen(MIXERS["s5"](16)), []
    with mixer.scan.register_forward_pre_hook(lambda _, given: records.append(given[0])):
        mixer(torch.randn(2, STEPS, 16))
    assert seen == [STEPS] and len(records) == 1
