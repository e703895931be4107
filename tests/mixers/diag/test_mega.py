"""Mega against its authors' code (tests/oracles/make_state_spaces.py), by chunks and whole, and cut within chunks."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.diag.mega import Mega

X = numbers("state_spaces")[1]["x"]


def build(name, chunk):
    weights, values = numbers("state_spaces", f"mega-{name}.")
    mixer = Mega(4, units=5, chunk=chunk, key_width=3).double()
    bias = weights["rel_pos_bias.rel_pos_bias"]
    project = {"weight": weights["mx_proj.weight"], "bias": weights["mx_proj.bias"].clone()}
    # two biases of one sum
    project["bias"][-4:] += weights["h_proj.bias"]
    mixer.load_state_dict(
        {
            "update": weights["move.delta"][..., 0],
            "forget": weights["move.alpha"][..., 0],
            "write": weights["move.beta"][..., 0],
            "read": weights["move.gamma"],
            "skip": weights["move.omega"],
            "value.weight": weights["v_proj.weight"],
            "value.bias": weights["v_proj.bias"],
            "project.weight": project["weight"],
            "project.bias": project["bias"],
            "out.weight": weights["h_proj.weight"],
            "scale": weights["gamma"],
            "shift": weights["beta"],
            # theirs are from the future's end to the past's
            "bias": bias[: len(bias) // 2 + 1].flip(0),
        }
    )
    return mixer, values["y"]


@each_way
@pytest.mark.parametrize(("name", "chunk"), [("chunk", 4), ("whole", 12)])
def test_equals_its_authors_code(name, chunk, way):
    mixer, y = build(name, chunk)
    with use(way):
        assert_close(mixer(X)[0], y, rtol=1e-12, atol=1e-12)


def test_a_cut_inside_a_chunk_and_packed_sequences_change_nothing():
    mixer, y = build("chunk", 4)
    state, pieces = None, []
    for piece in X.split([3, 1, 1, 5, 2], 1):
        out, state = mixer(piece, state)
        pieces.append(out)
    assert_close(torch.cat(pieces, 1), y)
    # a sequence that begins inside a chunk counts its chunks from there
    packed, last = mixer(torch.cat([X[:1, :6], X[1:, :11]], 1), None, Clock.packed([0, 6, 17]))
    assert_close(packed[0], torch.cat([y[0, :6], y[1, :11]]))
    _, alone = mixer(X[1:, :11])
    assert_close(last, alone)


def test_nothing_is_seen_of_the_chunk_before_but_through_the_average():
    mixer, _ = build("chunk", 4)
    x = X.clone().requires_grad_()
    with torch.no_grad():
        mixer.skip.zero_()
        mixer.read.zero_()
    (grad,) = torch.autograd.grad(mixer(x)[0][:, 5].sum(), x)
    assert (grad[:, :4] == 0).all() and (grad[:, 5] != 0).any()


def test_a_chunk_of_one_step_is_refused():
    with pytest.raises(ValueError, match="chunk is 1"):
        Mega(8, chunk=1)
