"""Every recipe is commands that parse, mean what its page says, and train: here for two steps of two rows."""

import dataclasses
import pathlib
import re
import runpy
import shlex
import sys

import pytest
from typer.testing import CliRunner

from recurra import train
from recurra.cli import app
from recurra.train.compare import plan
from recurra.train.contender import label
from recurra.train.progress import Quiet

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.sh"))
recipes = pytest.mark.parametrize("name", NAMES)


def commands(name):
    """The words of the recipe's commands, as a shell reads them: comparisons, each with a folder of its own."""
    text = (RECIPES / f"{name}.sh").read_text(encoding="utf-8").replace("\\\n", "")
    found = [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
    folders = [words[-1] for words in found]
    assert len(set(folders)) == len(folders)
    for words in found:
        assert words[:2] == ["recurra", "compare"]
        assert words[-2] == "--run" and words[-1].startswith("${1:-runs/recipes}/" + name)
    return found


def settings(name):
    """The comparisons that the recipe's commands ask for, caught before they start."""
    asked = []

    def compare(config, *_, **__):
        asked.append(config)
        raise train.RunError("caught")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compare", compare)
        for number, words in enumerate(commands(name), 1):
            done = CliRunner().invoke(app, words[1:])
            assert len(asked) == number, done.output
    return asked


def test_there_are_recipes():
    assert NAMES


@recipes
def test_a_recipe_has_three_seeds_and_a_page_with_every_mixer(name):
    page = (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    assert f"recipes/{name}.sh" in page
    for config in settings(name):
        assert config.seeds == 3 and len(plan(config)) == 3 * len(config.mixers)
        for mixer in config.mixers:
            assert f"| {label(mixer)} |" in page, f"{mixer} has no row in {name}.md"


@recipes
def test_a_recipe_trains(name, tmp_path):
    for number, config in enumerate(settings(name)):
        for run, full in plan(config).items():
            if full.seed == 0:
                small = dataclasses.replace(full, steps=2, batch=2, evaluation_tokens=1)
                result = train.train(small, tmp_path / str(number) / run, progress=Quiet())
                assert result.steps == 2
                assert abs(result.parameters / config.parameters - 1) < 0.03


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_says_what_it_is_and_refuses_what_it_does_not_know(path, monkeypatch, capsys):
    """Who asks for --help must not wait for hours, or train into a folder of that name."""
    monkeypatch.syspath_prepend(str(RECIPES))
    # the last of two words is too many also where a folder may be named
    for words, code in ((["--help"], 0), (["--nonsense"], 2), (["folder", "nonsense"], 2)):
        monkeypatch.setattr(sys, "argv", [path.name, *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
        said = capsys.readouterr()
        assert end.value.code == code
        if code:
            assert said.out == "" and re.search("error: unrecognized arguments: .*nonsense$", said.err.strip())
        else:
            assert f"python recipes/{path.name}" in said.out and said.err == ""
