"""The recipe of silent thinking is a program of its own: here it trains for two steps and prints its table."""

import dataclasses
import importlib.util
import pathlib

RECIPE = pathlib.Path(__file__).parents[1] / "recipes" / "silent_thinking.py"


def test_it_trains_goes_on_and_prints_a_table(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("silent_thinking", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    small = dataclasses.replace(recipe.TRAINED, steps=2, batch=4, evaluation_tokens=1)
    recipe.DEPTHS, recipe.LOOPS, recipe.BATCHES, recipe.ROWS = (2, 6), (1, 3), 1, 4
    for _ in range(2):
        recipe.main(tmp_path, small, seeds=2)
        lines = capsys.readouterr().out.strip().splitlines()
        assert lines[0] == "| depth | 1 loop | 3 loops |"
        assert [line[:5] for line in lines[2:]] == ["| 2 |", "| 6 |"]
