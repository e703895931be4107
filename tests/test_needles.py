"""The recipe of needles is a program that learns as that of rewrites does: here it trains for a step."""

import pathlib
import sys

import pytest
import torch

from recurra.state import nbytes

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(program):
    return program("needles")


def test_it_trains_and_its_page_has_a_row_for_each_arm(recipe, monkeypatch, capsys):
    page = (RECIPES / "needles.md").read_text(encoding="utf-8")
    for key, value in (("LENGTHS", (40, 64, 96)), ("HELD_OUT", 1), ("PIECE", 40), ("ROWS", 1)):
        monkeypatch.setattr(recipe, key, value)
    monkeypatch.setattr(sys, "argv", ["needles", "--steps", "1", "--seeds", "1"])
    recipe.main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert "python recipes/needles.py" in page
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {arm}" for arm in recipe.ARMS]
    for line in lines[2:]:
        # name, parameters and state do not depend on how long it trained
        arm, sizes = line.split(" | ")[0], line.split(" | ")[-3:-1]
        assert f"{arm} | " in page and f"| {' | '.join(sizes)} |" in page


def test_what_is_found_piece_by_piece_is_what_is_found_at_once(recipe, monkeypatch):
    monkeypatch.setattr(recipe, "HELD_OUT", 16)
    model = recipe.model_of("rmt")
    batch = recipe.TASK.batch("test", 0, 16, 200, 0)
    with torch.no_grad():
        logits, state = model(batch.inputs)
    assert nbytes(state) == nbytes(model.initial_state(16))
    right, asked = recipe.TASK.score(logits, batch)
    assert asked == 16 * recipe.TASK.keys
    monkeypatch.setattr(recipe, "PIECE", 77)
    assert recipe.found(model, 200) == right / asked
