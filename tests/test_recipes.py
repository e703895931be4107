"""Every recipe is one command that parses, means what its page says, and trains: here for two steps of two rows."""

import dataclasses
import pathlib
import shlex

import pytest
from typer.testing import CliRunner

from recurra import train
from recurra.cli import app
from recurra.train.compare import plan
from recurra.train.progress import Quiet

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.sh"))
recipes = pytest.mark.parametrize("name", NAMES)


def words(name):
    """The recipe's one command, as a shell reads it."""
    text = (RECIPES / f"{name}.sh").read_text(encoding="utf-8")
    command, *arguments = shlex.split(text.replace("\\\n", ""), comments=True)
    assert (command, arguments[0]) == ("recurra", "compare")
    assert arguments[-2:] == ["--run", "${1:-runs/recipes}/" + name]
    return arguments


def settings(name, monkeypatch):
    """The comparison that the recipe's command asks for, caught before it starts, and its runs."""
    asked = []

    def compare(config, *_, **__):
        asked.append(config)
        raise train.RunError("caught")

    monkeypatch.setattr(train, "compare", compare)
    done = CliRunner().invoke(app, words(name))
    assert asked, done.output
    return asked[0], plan(asked[0])


def test_there_are_recipes():
    assert NAMES


@recipes
def test_a_recipe_has_three_seeds_and_a_page_with_every_mixer(name, monkeypatch):
    config, runs = settings(name, monkeypatch)
    assert config.seeds == 3 and len(runs) == 3 * len(config.mixers)
    page = (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    assert f"recipes/{name}.sh" in page
    for mixer in config.mixers:
        assert f"| {mixer} |" in page, f"{mixer} has no row in {name}.md"


@recipes
def test_a_recipe_trains(name, monkeypatch, tmp_path):
    config, runs = settings(name, monkeypatch)
    for run, full in runs.items():
        if full.seed == 0:
            small = dataclasses.replace(full, steps=2, batch=2, evaluation_tokens=1)
            result = train.train(small, tmp_path / run, progress=Quiet())
            assert result.steps == 2
            assert abs(result.parameters / config.parameters - 1) < 0.03
