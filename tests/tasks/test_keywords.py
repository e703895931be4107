"""Whatever is given for a keyword of a task, on a command line or by hand, makes a task or costs one sentence."""

import inspect
import json

import numpy as np
import pytest

from recurra.exits import complaint
from recurra.tasks import TASKS, make, open_source

# as `--task KEY=VALUE` reads them; JSON has words for what is no number too
VALUES = [
    "abc", "", "S99", [1.0], [-1.0], ["a"], [], {}, None, True, -1, 0, 1, 1.5, -0.5, float("nan"), float("inf"), 10**30,
]  # fmt: skip
KEYWORDS = [(task, key) for task, kind in TASKS.items() for key in inspect.signature(kind).parameters]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 30)
    (folder / "series.csv").write_text("ds,y\n" + "".join(f"{i},{i % 7}\n" for i in range(100)))
    return {"text": {"source": str(folder / "text.txt")}, "series": {"source": str(folder / "series.csv")}}


@pytest.mark.parametrize(("task", "key"), KEYWORDS)
def test_it_makes_a_task_or_costs_one_sentence(sources, task, key):
    refused, kind = 0, inspect.signature(TASKS[task]).parameters[key].annotation
    for value in VALUES:
        # who checks types under test does not take a whole number for a number
        value = float(value) if kind is float and type(value) is int else value
        try:
            made = make({"task": task, **sources.get(task, {}), key: value})
            # what can be made can be written down, and gives numbers
            json.dumps(made.config, allow_nan=False)
            for split in ("train", "test"):
                inputs = made.batch(split, 0, 2, 100, 0).inputs
                assert np.isfinite(inputs.numpy()).all(), value
        except ValueError as error:
            said, refused = complaint(error), refused + 1
            assert said and said == str(error), (value, error)
    # text is neither a number nor true, a number is no text, and nothing is a list of numbers and a number
    assert refused > len(VALUES) // 3


@pytest.mark.parametrize("key", ["task", "source", "descriptor"])
@pytest.mark.parametrize("source", ["parity", "text.txt", "-"])
def test_what_the_source_says_is_not_said_again(key, source):
    with pytest.raises(ValueError, match=f"^{key} is no keyword of a task here"):
        open_source(source, **{key: 1})
