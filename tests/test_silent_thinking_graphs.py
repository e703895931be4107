"""Silent thinking on graphs is a program: here it trains for a step, and what its block hears is the task's graph."""

import pathlib
import sys

import pytest
import torch

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(program):
    return program("silent_thinking_graphs")


def test_it_trains_and_its_page_has_a_row_for_each_number_of_hops(recipe, monkeypatch, capsys):
    page = (RECIPES / "silent_thinking.md").read_text(encoding="utf-8")
    for key, value in (("BATCH", 2), ("HELD_OUT", 2), ("MANY", 2), ("HOPS", (2,))):
        monkeypatch.setattr(recipe, key, value)
    monkeypatch.setattr(sys, "argv", ["graphs", "--steps", "1", "--seeds", "1"])
    recipe.main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] in page and "python recipes/silent_thinking_graphs.py" in page
    for line in lines[2:]:
        assert line.split(" | ")[0] + " | " in page


def test_answers_are_what_arrows_say(recipe):
    batch = recipe.graphs("test", 0, 64, 2, 5, 0)
    heard = batch.nodes == 1
    for _ in range(5):
        heard = (batch.arrows[:, 0] & heard[:, None]).any(-1)
    assert torch.equal(heard[torch.arange(64), batch.goal].long(), batch.answers)
    assert 16 < batch.answers.sum() < 48


@torch.no_grad()
def test_a_loop_hears_one_hop_further(recipe):
    model, batch = recipe.model_of(), recipe.graphs("test", 0, 64, 1, 4, 0)
    # the same graphs, but nobody starts anywhere
    nowhere, heard = batch._replace(nodes=batch.nodes.masked_fill(batch.nodes == 1, 0)), batch.nodes == 1
    for loops in range(1, 4):
        heard = (batch.arrows[:, 0] & heard[:, None]).any(-1)
        moved = (recipe.says(model, batch, loops) - recipe.says(model, nowhere, loops)).abs().amax(-1)
        assert torch.equal(moved > 0, heard[torch.arange(64), batch.goal])
