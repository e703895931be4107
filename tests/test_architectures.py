"""docs/architectures.md is what the table, the docstrings and the tests say."""

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("architectures", ROOT / "docs" / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(script):
    errors = json.loads(script.ERRORS.read_text("utf-8"))
    written = script.PAGE.read_text("utf-8")
    assert written == script.page(errors), "run python docs/architectures.py --measure"


def test_errors_are_of_tests_that_there_are(script):
    for path, errors in json.loads(script.ERRORS.read_text("utf-8")).items():
        text = (ROOT / path).read_text("utf-8")
        for what in errors:
            assert f"def test_{what.replace(' ', '_')}(" in text, f"{path} no longer has a test that {what}"


@pytest.mark.parametrize("error, said", [(0.0, "none"), (3.1e-15, "at most 1e-14"), (1e-6, "at most 1e-6")])
def test_errors_are_rounded_up(script, error, said):
    assert script.order(error) == said


def test_equations_become_markdown(script):
    doc = "One :math:`a` line.\n\n.. math::\n    y = x\n    \\\\\n    z\n\nThe rest.\n\nArgs:\n    width: no"
    expected = "One $a$ line.\n\n```math\n\\begin{gathered}\ny = x\n\\\\\nz\n\\end{gathered}\n```\n\nThe rest."
    assert script.markdown(doc) == expected
