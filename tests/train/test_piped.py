"""Learning from a pipe: each step once, kept however it ends, and a cut between two pipes changes nothing."""

import json
import math

import pytest

from recurra.tasks import SourceError
from recurra.train import CompareConfig, Config, RunError, metrics, train
from recurra.train.given import endless, run_settings
from recurra.train.progress import Quiet
from recurra.train.report import report

HEADER = "ds,sine,double\n"


def rows(first, last):
    return "".join(f"{i},{5 + math.sin(i / 3):.4f},{10 + 2 * math.sin(i / 3):.4f}\n" for i in range(first, last))


def config(**changed):
    settings = dict(
        source="-", task={"horizon": 4}, arguments={"width": 8, "depth": 1, "pattern": "gru"}, batch=1, length=16,
        warmup=2, learning_rate=1e-2, evaluate_every=2, tbptt=True, endless=True, threads=1, steps=10**6,
    )  # fmt: skip
    return Config(**{**settings, **changed})


@pytest.fixture
def piped(monkeypatch, tmp_path):
    """A run that learns from what is piped in."""

    def run(text, name, resume=False, **changed):
        path = tmp_path / "input"
        path.write_text(text)
        with path.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return train(config(**changed), tmp_path / name, resume, progress=Quiet())

    return run


def test_two_pipes_are_one(piped, tmp_path):
    whole = piped(HEADER + rows(0, 16 * 6 + 4), "whole")
    piped(HEADER + rows(0, 16 * 3 + 4), "cut")
    result = piped(rows(16 * 3 + 4, 16 * 6 + 4), "cut", resume=True)
    assert whole.steps == result.steps == 6 and whole.tokens == result.tokens == 6 * 16 * 2
    one, two = ((tmp_path / x / "model.safetensors").read_bytes() for x in ("whole", "cut"))
    assert one == two
    assert [x["step"] for x in metrics.read(tmp_path / "whole") if "held_out" in x] == [2, 4, 6]
    assert 0 < whole.score < 1 and 0 < whole.chance < 1 and whole.measure.endswith("before learning")


def test_the_last_piece_is_learned_from_too_and_steps_stop_a_pipe(piped, tmp_path):
    result = piped(HEADER + rows(0, 16 + 4 + 5), "run")
    assert result.steps == 2 and result.tokens == 2 * (16 + 5)
    assert piped(HEADER + rows(0, 100), "short", steps=3).steps == 3
    page = report(tmp_path / "run").read_text()
    assert "2 steps" in page and "9,007" not in page


def test_text_goes_on_from_what_came_last(piped, tmp_path):
    result = piped("all is well here\n" * 10, "run", task={})
    assert result.measure == "bits per byte before learning" and result.chance == 8
    assert result.steps == 11 and result.prompt == ("all is well here\n" * 10)[-17:-1] and len(result.sample) > 100
    settings = json.loads((tmp_path / "run/config.json").read_text())["task"]
    assert settings == {"task": "text", "source": "-", "tokenizer": None}


def test_what_is_malformed_costs_nothing_that_came_before(piped, tmp_path):
    piped(HEADER + rows(0, 6000), "whole", length=512)
    with pytest.raises(SourceError, match=r"column double, row 5001: .*; the last checkpoint is .*step-0+\d"):
        piped(HEADER + rows(0, 5000) + "5000,1,x\n" + rows(5001, 6000), "run", length=512)
    piped(rows(5000, 6000), "run", resume=True, length=512)
    one, two = ((tmp_path / x / "model.safetensors").read_bytes() for x in ("whole", "run"))
    assert one == two


def test_a_pipe_in_which_too_little_came_leaves_nothing(piped, tmp_path):
    for text, said in (("", "the pipe is empty"), (HEADER + rows(0, 4), "over after 4 steps"), ("x", "over after 1")):
        with pytest.raises(SourceError, match=said):
            piped(text, "run", task={"horizon": 4} if text.startswith("ds") else {})
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_what_it_learned_from(piped, tmp_path):
    piped(HEADER + rows(0, 40), "run")
    before = (tmp_path / "run/model.safetensors").read_bytes()
    with pytest.raises(SourceError, match=r"but 4 values in row 1"):
        piped("40,1,2,3\n41,1,2,3\n", "run", resume=True)
    with pytest.raises(SourceError, match="the time 3 in row 1, after 39"):
        piped("3,1,2\n41,1,2\n", "run", resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_what_cannot_be():
    with pytest.raises(RunError, match="read once and cannot be gone back to: add --endless"):
        Config(source="-")
    with pytest.raises(RunError, match="batch is 16: a pipe is one stream"):
        Config(source="-", endless=True, tbptt=True)
    with pytest.raises(RunError, match="by one run only"):
        CompareConfig(source="-", mixers=("gru",))
    options = {"source": "-", "arguments": {"pattern": "gru"}}
    assert run_settings({**options, **endless("-", None, None)}, [], None).batch == 1
    assert run_settings({**options, "source": "x", **endless("x", 5, None)}, [], None).batch == 16
