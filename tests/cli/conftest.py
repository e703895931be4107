"""What the tests of the command share: a text, a series, a small run, and that no process is left.

recurra is imported where it is used: this file is read before its shapes are watched.
"""

import contextlib
import shutil

import pytest


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """Whatever a test does, what it started ends with it."""
    from commands import STARTED

    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "log.txt"
    path.write_text("".join(f"line {i % 7} of the log: all is well\n" for i in range(300)))
    return path


@pytest.fixture(scope="session")
def made(text):
    """A small run; use `run`, a copy."""
    from recurra.train import Config, train

    folder = text.parent / "made"
    config = Config(
        source=str(text), arguments={"pattern": "gla", "width": 16, "depth": 1}, batch=16, length=32, steps=60,
        learning_rate=1e-2, warmup=5, evaluate_every=30, checkpoint_every=30, evaluation_tokens=512, threads=1,
    )  # fmt: skip
    train(config, folder)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "sales.csv"
    rows = [f"a,{i},{100 + i % 4}\nb,{i},{5 - i % 3}\n" for i in range(80)]
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    return path
