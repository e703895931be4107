"""The recipes that are scripts run: here with a few units for a few steps."""

import pathlib
import runpy
import sys

import pytest

RECIPES = pathlib.Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("force", ["--units", "8", "--periods", "1", "--free", "1"]),
        ("curricula", ["--longest", "3", "--steps", "2"]),
        ("target_dynamics", ["--steps", "2"]),
    ],
)
def test_a_script_runs_and_has_a_page(name, words, tmp_path, monkeypatch, capsys):
    script, folder = RECIPES / f"{name}.py", [] if name == "force" else ["--run", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(script), *words, "--seeds", "1", *folder])
    runpy.run_path(str(script), run_name="__main__")
    assert "seed 0" in capsys.readouterr().out
    assert f"recipes/{name}.py" in (RECIPES / f"{name}.md").read_text(encoding="utf-8")
