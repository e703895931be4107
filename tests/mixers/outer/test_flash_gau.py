"""FLASH against FLASH-pytorch (tests/oracles/make_flash_gau.py); groups are the sequence's own, wherever it is cut."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, state as states
from recurra.mixers.outer.flash_gau import FlashGAU

WEIGHTS, STORED = numbers("flash_gau")


@pytest.fixture
def mixer():
    mixer = FlashGAU(8, group=7, size=6).double()
    # theirs: queries of both kinds, then keys of both kinds; so are ours
    four = {name: WEIGHTS[f"qk_offset_scale.{theirs}"] for name, theirs in (("scale", "gamma"), ("offset", "beta"))}
    both = {f"project.{k}": torch.cat([WEIGHTS[f"to_{n}.0.{k}"] for n in ("hidden", "qk")]) for k in ("weight", "bias")}
    mixer.load_state_dict(
        both
        | {name: part.view(2, 2, 6) for name, part in four.items()}
        | {"near": STORED["near"], "out.weight": WEIGHTS["to_out.weight"], "out.bias": WEIGHTS["to_out.bias"]}
    )
    return mixer


def test_equals_flash_pytorch(mixer):
    y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cuts", [(1,), (6, 7, 8), (3, 3, 20, 21), tuple(range(1, 41))])
def test_groups_do_not_begin_at_a_cut(mixer, cuts):
    state, outputs, start = None, [], 0
    for stop in (*cuts, 41):
        y, state = mixer(STORED["x"][:, start:stop], state)
        outputs.append(y)
        start = stop
    assert_close(torch.cat(outputs, 1), STORED["y"], rtol=1e-12, atol=1e-12)
    whole = mixer(STORED["x"])[1]
    for got, want in zip(states.leaves(state), states.leaves(whole), strict=True):
        assert_close(got, want)


def test_packed_and_padded_rows_have_groups_of_their_own(mixer):
    x = STORED["x"]
    packed, _ = mixer(torch.cat([x[:1, :11], x[1:]], 1), None, Clock.packed([0, 11, 52]))
    assert_close(packed, torch.cat([mixer(x[:1, :11])[0], mixer(x[1:])[0]], 1))
    valid = torch.rand(2, 41) < 0.7
    reset = torch.rand(2, 41) < 0.1
    cut = 17
    y, state = mixer(x[:, :cut], None, Clock(reset, valid).cut(0, cut))
    rest, state = mixer(x[:, cut:], state, Clock(reset, valid).cut(cut))
    for row in range(2):
        happened = valid[row]
        alone, end = mixer(x[row : row + 1, happened], None, Clock(reset[row : row + 1, happened]))
        assert_close(torch.cat([y, rest], 1)[row, happened], alone[0])
        for got, want in zip(states.leaves(states.rows(state, [row])), states.leaves(end), strict=True):
            assert_close(got, want)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="group is 0: it must be at least 1"):
        FlashGAU(8, group=0)


def test_gradients_cross_cuts_inside_groups_and_at_their_ends(mixer):
    x, weight = STORED["x"].clone().requires_grad_(), torch.randn(2, 41, 8, dtype=torch.float64)
    wanted = [x, *mixer.parameters()]
    state, pieces = None, []
    for start, stop in ((0, 3), (3, 14), (14, 41)):
        y, state = mixer(x[:, start:stop], state)
        pieces.append(y)
    got = torch.autograd.grad((torch.cat(pieces, 1) * weight).sum(), wanted)
    whole = torch.autograd.grad((mixer(x)[0] * weight).sum(), wanted)
    for mine, theirs in zip(got, whole, strict=True):
        assert (theirs != 0).any()
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
