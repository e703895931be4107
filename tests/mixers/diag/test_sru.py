"""SRU against the authors' package (tests/oracles/make_gates.py), with the gates' view of the cell and without."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.sru import SRU


def build(name):
    weights, stored = numbers("gates", f"{name}.")
    mixer = SRU(8, peepholes=name == "sru", highway_bias=-1.0).double()
    # theirs has the maps of a unit side by side
    ours = {"inputs.weight": weights["weight"].unflatten(1, (8, 3)).permute(2, 1, 0).flatten(0, 1)}
    ours["bias"] = weights["bias"]
    if name == "sru":
        ours["peepholes"] = weights["weight_c"].unflatten(0, (2, 8))
    mixer.load_state_dict(ours)
    return mixer, stored


@pytest.mark.parametrize(
    "name, way", [(x, way) for x in ("sru", "sru1") for way in (None, "loop")] + [("sru", "newton")]
)
def test_equals_the_authors_package(name, way):
    mixer, stored = build(name)
    with use(way) if way else contextlib.nullcontext():
        y, (c,) = mixer(stored["x"])
        after, (end,) = mixer(stored["x"], (stored["start"],))
    for ours, theirs in ((y, "y"), (c, "last"), (after, "from"), (end, "end")):
        assert_close(ours, stored[theirs], rtol=1e-12, atol=1e-12)


def test_a_cell_that_gates_do_not_weigh_is_the_scan():
    cell, scan = SRU(8).double(), SRU(8, peepholes=False).double()
    with torch.no_grad():
        cell.peepholes.zero_()
    scan.load_state_dict({name: p for name, p in cell.state_dict().items() if name != "peepholes"})
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    for ours, theirs in zip(cell(x), scan(x), strict=True):
        assert_close(ours, theirs)


def test_the_highway_lets_the_input_by_at_its_own_size():
    mixer = SRU(8, highway_bias=-30.0)
    x = torch.randn(2, 20, 8)
    with torch.no_grad():
        mixer.inputs.weight.zero_()
    assert_close(mixer(x)[0], x)
    assert SRU(8, highway_bias=-1.0).bias.unique().tolist() == [-1.0, 0.0]
