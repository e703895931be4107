"""The recipe of machines is a program beside its commands: here it trains for a step, and what it asks is right."""

import pathlib
import sys

import pytest
import torch

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(program):
    return program("machines")


def test_it_trains_and_its_page_has_a_row_for_each_arm(recipe, monkeypatch, capsys):
    page = (RECIPES / "machines.md").read_text(encoding="utf-8")
    monkeypatch.setattr(recipe, "HELD_OUT", 4)
    monkeypatch.setattr(sys, "argv", ["machines", "--steps", "1", "--seeds", "1"])
    recipe.main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert "python recipes/machines.py" in page and lines[0] in page
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {arm}" for arm in recipe.ARMS]
    for line in lines[2:]:
        # name, parameters and state do not depend on how long it trained
        arm, sizes = line.split(" | ")[0], line.split(" | ")[-3:-1]
        assert f"{arm} | " in page and f"| {' | '.join(sizes)} |" in page


def test_the_answer_is_the_item_after_the_one_that_is_asked_for(recipe):
    batch = recipe.batch_of("train", 3, 16, 4, 1)
    for row, targets, scored in zip(*(x.tolist() for x in batch[:3]), strict=True):
        listed, asked, silence = [row[i + 1 : i + 4] for i in range(0, 16, 4)], row[16:21], row[21:]
        assert len({tuple(item) for item in listed}) == 4
        assert asked[0] == asked[-1] == recipe.ASK and silence == [0] * recipe.LONG
        assert targets[-recipe.LONG :] == listed[listed.index(asked[1:-1]) + 1]
        assert scored == [False] * 21 + [True] * recipe.LONG


def test_rows_of_one_side_are_not_on_the_other(recipe):
    sides = [recipe.batch_of(split, 0, 200, 2, 0) for split in ("train", "test")]
    train, test = ({tuple(row) for row in torch.cat([x.inputs, x.targets], 1).tolist()} for x in sides)
    assert not train & test
