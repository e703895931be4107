"""The README cannot lie: its Python runs, its commands exist, its table is what the tables say."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_the_program_and_its_pages_say_is_current():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for name in tables.CHECKED:
        assert tables.BLOCKS[name]() in README, f"run python docs/tables.py: {name} is not what it would be"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_the_readmes_python_runs(code, tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_readmes_commands_exist():
    commands = set(re.findall(r"^\s*(?:.*\|\s*)?recurra ([a-z]+)", README, re.M))
    assert commands
    known = subprocess.run([sys.executable, "-m", "recurra", "--help"], capture_output=True, text=True).stdout
    for command in commands:
        assert re.search(rf"\b{command}\b", known), f"the README says recurra {command}"


def test_the_readmes_targets_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^    |`)make ([a-z]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), f"the README says make {target}"


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", re.sub(r"```.*?```", "", README, flags=re.S)):
        assert (ROOT / link).exists(), f"README.md links to {link}"
