"""A mixer in a stack knows where it stands, if its constructor asks, and what the user says goes before that."""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.outer.mlstm import MLSTM
from recurra.models.backbone import Backbone, place


def test_the_place_is_among_those_of_its_kind_and_the_stack_is_all():
    layers = ["hgrn", "minmax", "gla", "hgrn"]
    assert [place(layers, i) for i in range(4)] == [
        {"layer": 0, "depth": 2},
        {"stack": 4},
        {},
        {"layer": 1, "depth": 2},
    ]


@pytest.mark.parametrize("name", ["hgrn", "hgrn2"])
def test_bounds_grow_with_depth(name):
    stack = Backbone(8, 8, f"{name},gla")
    assert [block.mixer.lower_bound for block in stack.blocks[::2]] == [0.0, 0.25, 0.5, 0.75]


def test_rates_fall_with_depth():
    assert [block.mixer.height for block in Backbone(8, 3, "transnormer").blocks] == [0.0, 0.5, 1.0]


def test_every_block_counts_for_what_is_added_to_the_stream():
    torch.manual_seed(0)
    one = Backbone(8, 6, "gla,mlstm").blocks[1].mixer
    assert one.config["stack"] == 6
    torch.manual_seed(0)
    wide = Backbone(256, 2, "mlstm").blocks[0].mixer.out.weight.std()
    assert_close(wide.item(), MLSTM(256, stack=2).out.weight.std().item(), rtol=0.02, atol=0)


def test_what_the_user_says_goes_before():
    stack = Backbone(8, 2, "hgrn", {"hgrn": {"lower_bound": 0.9}})
    assert [block.mixer.lower_bound for block in stack.blocks] == [0.9, 0.9]
    stack = Backbone(8, 2, "minmax", {"minmax": {"stack": 24}})
    assert stack.blocks[0].mixer.config["stack"] == 24
