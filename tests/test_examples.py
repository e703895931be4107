"""Every example runs, says something, and stays short enough to read."""

import os
import pathlib
import subprocess
import sys

import pytest
from forked import Popen

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = f"import runpy, warnings; warnings.simplefilter('error'); runpy.run_path({str(path)!r}, run_name='__main__')"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, **pipes) as process:
        try:
            out, said = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert out.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_it_is_under_sixty_lines(path):
    assert len(path.read_text().splitlines()) < 60
