"""The recipe of selective copying is a program beside its commands: here its models take a step, and print a table."""

import math
import pathlib
import sys

import pytest

from recurra.models import count
from recurra.state import nbytes
from recurra.tasks import make
from recurra.train.compare import plan
from recurra.train.run import build

PAGE = pathlib.Path(__file__).parents[1] / "recipes" / "selective_copying.md"


@pytest.fixture
def recipe(program):
    return program("selective_copying")


def test_its_models_learn_and_its_page_has_a_row_for_each(recipe):
    page = PAGE.read_text(encoding="utf-8")
    assert "python recipes/selective_copying.py" in page
    for full in plan(recipe.config(1, 1)).values():
        task, mixer = make({"task": full.source, **full.task}), full.arguments["pattern"]
        model, batch = build(full, task), task.batch("train", 0, 2, full.length, 0)
        loss = task.loss(model(batch.inputs)[0], batch)
        loss.backward()
        assert math.isfinite(loss.item())
        assert abs(count(model) / recipe.PARAMETERS - 1) < 0.03
        assert all(block.mlp is None for block in model.backbone.blocks)
        sizes = f"| {count(model):,} | {nbytes(model.initial_state(1)):,} |"
        assert any(line.startswith(f"| {mixer} |") and line.endswith(sizes) for line in page.splitlines())


def test_its_table_is_that_of_its_page(recipe, monkeypatch, capsys):
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
