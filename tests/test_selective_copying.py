"""The recipe of selective copying is a program beside its commands: here its models train for a step."""

import dataclasses
import pathlib
import sys

import pytest

from recurra import train
from recurra.train.compare import plan
from recurra.train.progress import Quiet

PAGE = pathlib.Path(__file__).parents[1] / "recipes" / "selective_copying.md"


@pytest.fixture
def recipe(program):
    return program("selective_copying")


def test_it_trains_and_its_page_has_a_row_for_each_mixer(recipe, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    assert "python recipes/selective_copying.py" in page
    for run, full in plan(recipe.config(1, 1)).items():
        small = dataclasses.replace(full, batch=2, evaluation_tokens=1)
        result = train.train(small, tmp_path / run, progress=Quiet())
        assert abs(result.parameters / recipe.PARAMETERS - 1) < 0.03
        row = [line for line in page.splitlines() if line.startswith(f"| {small.arguments['pattern']} |")]
        assert any(line.endswith(f"| {result.parameters:,} | {result.state_bytes:,} |") for line in row)


def test_its_table_is_the_page_s(recipe, monkeypatch, capsys):
    row = {
        "mixer": "s4d", "score_mean": 0.5, "score_spread": 0.1, "scores": [0.4, 0.6], "parameters": 1000,
        "state_bytes": 20,
    }  # fmt: skip
    monkeypatch.setattr(recipe, "compare", lambda *_, **__: [row])
    monkeypatch.setattr(sys, "argv", ["selective_copying"])
    recipe.main()
    head, _, line = capsys.readouterr().out.splitlines()
    assert head in PAGE.read_text(encoding="utf-8")
    assert line == "| s4d | 0.500 ± 0.100 | 0.400, 0.600 | 1,000 | 20 |"
