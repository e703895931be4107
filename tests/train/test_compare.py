"""Comparisons: equal terms for all, a process each, stopped and resumed as any run."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
import types

import pytest
from forked import Popen
from train.pausing import AT

import recurra
from recurra.models import load
from recurra.train import (
    CompareConfig,
    Incomplete,
    RunError,
    Stopped,
    checkpoints,
    compare,
    metrics,
    pool,
    read_settings,
    train,
)
from recurra.train.board import LineBoard, QuietBoard
from recurra.train.compare import plan
from recurra.train.measure import step_microseconds
from recurra.train.progress import Quiet
from recurra.train.report import report

COLUMNS = {
    "mixer", "run", "parameters", "score_mean", "score_spread", "scores", "measure", "lower_is_better", "chance",
    "state_bytes", "grows", "tokens_per_second", "step_microseconds", "seconds", "prompt", "sample",
}  # fmt: skip
TRAINING = {
    "steps": 12, "batch": 4, "length": 32, "warmup": 2, "evaluate_every": 6, "checkpoint_every": 5,
    "evaluation_tokens": 512,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _forked(monkeypatch):
    """The runs of a comparison need not import torch, each for itself; one test here starts them as they are."""
    monkeypatch.setattr(pool, "subprocess", types.SimpleNamespace(Popen=Popen, DEVNULL=subprocess.DEVNULL))


def config(**changed) -> CompareConfig:
    settings = dict(source="parity", mixers=("elman", "lstm"), parameters=20_000, arguments={"depth": 1})
    return CompareConfig(**{**settings, "training": TRAINING, **changed})


def text(folder: pathlib.Path) -> str:
    path = folder / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog; " * 300)
    return str(path)


@contextlib.contextmanager
def pausing(started=None):
    """Inside, runs wait after some steps until they are asked to stop; the list takes the processes."""
    start, tests = pool.start, pathlib.Path(__file__).parents[1]
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", str(tests), prepend=os.pathsep)

        def waiting(job):
            process = start(job._replace(module="train.pausing"))
            (started if started is not None else []).append(process)
            return process

        changed.setattr(pool, "start", waiting)
        yield


def losses(folder: pathlib.Path) -> list[float]:
    return [line["loss"] for line in metrics.read(folder) if "loss" in line]


def test_every_mixer_has_the_same_terms():
    runs = plan(config(mixers=("elman", "lstm", "elman*2,lstm"), seeds=2))
    assert list(runs) == [f"{name}-{seed}" for seed in (0, 1) for name in ("elman", "lstm", "elmanx2+lstm")]
    for run in runs.values():
        assert (run.threads, run.steps, run.batch, run.source) == (1, 12, 4, "parity")
    assert [run.seed for run in runs.values()] == [0, 0, 0, 1, 1, 1]
    assert len({run.arguments["width"] for run in runs.values()}) > 1


def test_every_mixer_by_every_rule_with_every_mask():
    settings = config(
        mixers=("elman",), rules=("bptt", "snap"), masks=("none", "static"), rule_arguments={"snap": {"order": 2}},
        mask_arguments={"static": {"density": 0.5}},
    )  # fmt: skip
    runs = plan(settings)
    assert list(runs) == ["elman-0", "elman-static-0", "elman-snap-0", "elman-snap-static-0"]
    both = runs["elman-snap-static-0"]
    assert (both.rule, both.rule_arguments, both.mask, both.mask_arguments) == (
        "snap", {"order": 2}, "static", {"density": 0.5},
    )  # fmt: skip
    assert (runs["elman-0"].rule, runs["elman-0"].mask, runs["elman-0"].mask_arguments) == ("bptt", None, {})
    for wrong in ({"rules": ()}, {"masks": ("none", "none")}, {"training": {"rule": "rtrl"}}):
        with pytest.raises(RunError, match=r"name at least one|sets rule"):
            config(**wrong)


def test_rules_side_by_side(tmp_path):
    """One table and one page for two ways to learn; the page knows what each kept for credit."""
    settings = config(mixers=("elman",), rules=("bptt", "rtrl"), parameters=2150, training={**TRAINING, "length": 16})
    rows = compare(settings, tmp_path / "rules", progress=QuietBoard(), workers=2)
    assert {row["mixer"] for row in rows} == {"elman", "elman by rtrl"}
    page = report(tmp_path / "rules").read_text()
    assert "elman by rtrl" in page and "rule&#x27;s memory" in page


def test_a_table_of_what_was_trained(tmp_path):
    out = io.StringIO()
    folder = tmp_path / "both"
    rows = compare(config(source=text(tmp_path), seeds=2), folder, progress=LineBoard(out, pause=0.0), workers=2)
    assert json.loads((folder / "table.json").read_text()) == rows
    assert {row["mixer"] for row in rows} == {"elman", "lstm"} and all(set(row) == COLUMNS for row in rows)
    assert rows[0]["score_mean"] <= rows[1]["score_mean"]
    for row in rows:
        assert row["parameters"] == pytest.approx(20_000, rel=0.03)
        assert row["score_spread"] == pytest.approx(statistics.stdev(row["scores"])) and len(row["scores"]) == 2
        assert row["measure"] == "bits per byte" and row["step_microseconds"] > 0 and not row["grows"]
        assert len(row["prompt"]) == 32 and row["sample"]
        assert json.loads((folder / row["run"] / "result.json").read_text())["score"] == min(row["scores"])
        assert len(losses(folder / row["run"])) == 12
    tokens = {metrics.read(folder / name)[-1]["tokens"] for name in ("elman-0", "lstm-1")}
    assert tokens == {12 * 4 * 32}
    assert read_settings(folder / "lstm-1").seed == 1
    said = out.getvalue()
    assert "run elman-0  training" in said and "run lstm-1  done  step 12/12  loss " in said


def test_a_comparison_stops_saves_and_goes_on_to_the_same_numbers(tmp_path):
    """Ctrl-C once both train; what was done is not done again, and all ends as if nothing had happened."""
    long = config(training={**TRAINING, "steps": 60, "evaluate_every": 20})
    folder = tmp_path / "stopped"

    def interrupt() -> None:
        for _ in range(6000):
            if all(len(metrics.read(folder / name)) > 20 for name in ("elman-0", "lstm-0")):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pausing(), pytest.raises(Stopped, match=r"of 2 runs in .* are done; resume to go on"):
        compare(long, folder, progress=QuietBoard(), workers=2)
    thread.join()
    reached = {name: len(losses(folder / name)) for name in ("elman-0", "lstm-0")}
    assert all(20 <= steps <= AT for steps in reached.values()), reached
    resumed = compare(long, folder, resume=True, progress=QuietBoard(), workers=2)
    scores = {row["run"]: row["scores"] for row in resumed}
    for name, settings in plan(long).items():
        # writing changes no number, and takes half of the time
        straight = train(dataclasses.replace(settings, checkpoint_every=60), tmp_path / name, progress=Quiet())
        assert losses(folder / name) == losses(tmp_path / name) and scores[name] == [straight.score]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name == "metrics.jsonl"}
    again = compare(long, folder, resume=True, progress=QuietBoard())
    assert [row["scores"] for row in again] == [row["scores"] for row in resumed]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was trained again"


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path):
    folder = tmp_path / "both"
    stubborn = config(training={**TRAINING, "learning_rate": 1e30, "clip": 1e30}, mixers=("lru", "lstm"))
    with pytest.raises(Incomplete) as caught:
        compare(stubborn, folder, progress=QuietBoard(), workers=2)
    message, rows = str(caught.value), caught.value.rows
    assert "of 2 runs failed" in message and "lower the learning rate" in message and "\n" not in message
    assert len(rows) + message.count("lower the learning rate") == 2
    assert json.loads((folder / "table.json").read_text()) == rows


def test_a_killed_child_is_told_by_its_signal_and_trained_on_later(tmp_path):
    folder, long = tmp_path / "both", config(training={**TRAINING, "steps": 60}, mixers=("elman",))
    started = []

    class Killer(QuietBoard):
        def show(self, standings) -> None:
            if standings[0].step > 20:
                started[0].kill()

    with pausing(started), pytest.raises(Incomplete, match="elman-0 was ended by SIGKILL") as caught:
        compare(long, folder, progress=Killer(), workers=1)
    assert caught.value.rows == []
    assert len(compare(long, folder, resume=True, progress=QuietBoard(), workers=1)) == 1


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path):
    for wrong, sentence in (
        ({"mixers": ("lstn",)}, "there is no mixer 'lstn', did you mean 'lstm'"),
        ({"parameters": 7}, "cannot have 7 parameters"),
        ({"arguments": {"depht": 2}}, "no keyword 'depht', did you mean 'depth'"),
        ({"training": {"step": 2}}, "no setting 'step', did you mean 'steps'"),
        ({"source": "party"}, "parity"),
    ):
        with pytest.raises(ValueError, match=sentence):
            compare(config(**wrong), tmp_path / "both", progress=QuietBoard())
        assert not (tmp_path / "both").exists()
    with pytest.raises(RunError, match="workers is -1: it must be at least 0"):
        compare(config(), tmp_path / "both", progress=QuietBoard(), workers=-1)
    (tmp_path / "both").mkdir()
    (tmp_path / "both/mine.txt").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        compare(config(), tmp_path / "both", progress=QuietBoard())
    with pytest.raises(RunError, match="holds no comparison"):
        compare(config(), tmp_path / "both", resume=True, progress=QuietBoard())
    (tmp_path / "both/compare.json").write_text(json.dumps(config(seeds=2).to_json()))
    with pytest.raises(RunError, match="seeds was 2 and is 1"):
        compare(config(), tmp_path / "both", resume=True, progress=QuietBoard())


def test_a_step_is_timed_for_tokens_and_for_features(tmp_path):
    from recurra.models import Forecaster, LanguageModel

    for model in (
        LanguageModel(vocabulary=9, width=8, depth=1, pattern="lstm"),
        Forecaster(inputs=3, width=8, depth=1, pattern="lstm"),
    ):
        model.save_pretrained(tmp_path / model.name)
        assert 1 < step_microseconds(load(tmp_path / model.name)) < 1e6


def test_a_run_whose_comparison_was_killed_saves_and_stops(tmp_path):
    """Nothing is left behind to train on for nobody."""
    settings, folder = tmp_path / "settings.json", tmp_path / "run"
    run = plan(config(mixers=("elman",), training={**TRAINING, "steps": 10**6, "checkpoint_every": 10**6}))["elman-0"]
    settings.write_text(json.dumps(run.to_json()))
    job = pool.Job("elman-0", "recurra.train.worker", [str(settings), str(folder)], tmp_path / "log")
    code = f"import pathlib, time; from recurra.train import pool; j = pool.Job({job.name!r}, {job.module!r}, "
    code += f"{job.arguments!r}, pathlib.Path({str(job.log)!r})); print(pool.start(j).pid, flush=True); time.sleep(999)"
    home = str(pathlib.Path(recurra.__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": home}
    )
    with parent:
        child = int(parent.stdout.readline())
        try:
            for _ in range(6000):
                if metrics.read(folder):
                    break
                time.sleep(0.05)
            parent.kill()
            for _ in range(6000):
                if "resume to go on" in job.log.read_text():
                    break
                time.sleep(0.05)
        finally:
            parent.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert "stopped after step" in job.log.read_text()
    assert len(checkpoints.found(folder)) == 1
