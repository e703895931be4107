"""The recipe of rewrites is a program of its own: here it trains for a step and prints a row for each of its page."""

import pathlib
import sys

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


def test_it_trains_and_its_page_has_a_row_for_each_arm(program, monkeypatch, capsys):
    recipe, page = program("rewrites"), (RECIPES / "rewrites.md").read_text(encoding="utf-8")
    for name, small in (("SEGMENTS", (1, 2, 4, 8, 16)), ("HELD_OUT", 2), ("BATCH", 2)):
        monkeypatch.setattr(recipe, name, small)
    monkeypatch.setattr(sys, "argv", ["recipe", "--steps", "1", "--seeds", "1"])
    recipe.main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] in page and "python recipes/rewrites.py" in page
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {arm}" for arm in recipe.ARMS]
    for line in lines[2:]:
        # name, parameters and state do not depend on how long it trained
        name, sizes = line.split(" | ")[0], line.split(" | ")[-3:-1]
        assert f"{name} | " in page and f"| {' | '.join(sizes)} |" in page
