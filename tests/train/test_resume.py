"""A run goes on to the same numbers, whatever stopped it; and a checkpoint that is not whole is never used."""

import dataclasses
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from forked import Popen
from train import tiny
from train.test_loop import numbers, weights

import recurra
from recurra.mixers import MIXERS
from recurra.models.folder import read_config
from recurra.tasks import TASKS
from recurra.train import Config, RunError, Stopped, checkpoints, metrics, read_settings, result, train
from recurra.train.progress import Quiet

ROOT = pathlib.Path(recurra.__file__).parents[1]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(tiny.MODELS, "tiny", tiny.TinyModel)
    monkeypatch.setitem(TASKS, "tiny", tiny.TinyTask)


class StopAt(Quiet):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step, self.said = step, []

    def line(self, line: dict) -> None:
        if line["step"] == self.step and "loss" in line:
            os.kill(os.getpid(), signal.SIGINT)

    def say(self, text: str) -> None:
        self.said.append(text)


def start(folder: pathlib.Path, steps: int) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "train.tiny", str(folder), str(steps)]
    return Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(folder: pathlib.Path, step: int) -> None:
    """Until a run that another process trains has come to a step."""
    for _ in range(6000):
        if any(line["step"] >= step for line in metrics.read(folder)):
            return
        time.sleep(0.05)
    raise AssertionError("the run never began")


@pytest.mark.parametrize("changed", [{}, {"tbptt": True}, {"precision": "bfloat16", "tbptt": True}])
@pytest.mark.parametrize("step", [1, 4, 7, 29])
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, changed, step):
    config = tiny.config(**changed)
    straight = train(config, tmp_path / "straight", progress=Quiet())
    with pytest.raises(Stopped, match=rf"stopped after step {step} of 30; .*step-0+{step}; resume to go on"):
        train(config, tmp_path / "run", progress=StopAt(step))
    assert not (tmp_path / "run/result.json").exists()
    resumed = train(config, tmp_path / "run", resume=True, progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert (resumed.score, resumed.tokens) == (straight.score, straight.tokens)


def test_stopped_twice_and_between_evaluations(tmp_path):
    train(tiny.config(tbptt=True), tmp_path / "straight", progress=Quiet())
    resume = False
    for step in (5, 6, 14):
        with pytest.raises(Stopped):
            train(tiny.config(tbptt=True), tmp_path / "run", resume=resume, progress=StopAt(step))
        resume = True
    train(tiny.config(tbptt=True), tmp_path / "run", resume=True, progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_stopping_at_the_last_step_is_ending(tmp_path):
    ended = train(tiny.config(), tmp_path / "run", progress=StopAt(30))
    assert ended.steps == 30 and (tmp_path / "run/result.json").exists()


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    """SIGKILL at a step drawn by chance: no handler, no goodbye."""
    steps = 400
    process = start(tmp_path / "run", steps)
    try:
        wait_for(tmp_path / "run", random.Random().randrange(20, 150))
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = metrics.read(tmp_path / "run")[-1]["step"]
    assert 0 < reached < steps
    config = tiny.config(steps=steps, tbptt=True)
    train(config, tmp_path / "run", resume=True, progress=Quiet())
    # writing changes no number, and takes half of the time
    train(dataclasses.replace(config, checkpoint_every=steps), tmp_path / "straight", progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")


def test_ctrl_c_in_a_process_saves_says_how_to_go_on_and_exits_with_130(tmp_path):
    process = start(tmp_path / "run", 4000)
    try:
        wait_for(tmp_path / "run", 10)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, complaints
    assert "resume to go on" in said
    newest = checkpoints.found(tmp_path / "run")[0]
    assert metrics.read(tmp_path / "run")[-1]["step"] == int(newest.name.removeprefix("step-"))


def test_resuming_a_run_that_ended_changes_nothing(tmp_path):
    ended = train(tiny.config(), tmp_path / "run", progress=Quiet())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train(tiny.config(), tmp_path / "run", resume=True, progress=Quiet()) == ended
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_killed_between_the_last_step_and_the_result(tmp_path):
    ended = train(tiny.config(), tmp_path / "run", progress=Quiet())
    (tmp_path / "run/result.json").unlink()
    kept = weights(tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    assert train(tiny.config(), tmp_path / "run", resume=True, progress=Quiet()).score == ended.score
    assert weights(tmp_path / "run") == kept


def test_killed_before_the_first_checkpoint(tmp_path):
    with pytest.raises(Stopped):
        train(tiny.config(), tmp_path / "run", progress=StopAt(2))
    shutil.rmtree(tmp_path / "run/checkpoints")
    progress = StopAt(99)
    train(tiny.config(), tmp_path / "run", resume=True, progress=progress)
    assert "no checkpoint yet" in progress.said[0]
    train(tiny.config(), tmp_path / "straight", progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def interrupted(tmp_path: pathlib.Path, step: int = 10) -> pathlib.Path:
    with pytest.raises(Stopped):
        train(tiny.config(tbptt=True), tmp_path / "run", progress=StopAt(step))
    return tmp_path / "run"


def test_the_last_two_checkpoints_are_kept_and_nothing_is_pickled(tmp_path):
    folder = interrupted(tmp_path)
    newest, before = checkpoints.found(folder)
    assert (newest.name, before.name) == ("step-000000010", "step-000000008")
    assert sorted(path.name for path in newest.iterdir()) == [
        "checkpoint.json", "model.safetensors", "optimiser.safetensors", "random.safetensors", "state.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["model", "optimiser", "random", "state"])
def test_a_truncated_checkpoint_is_not_used_and_the_one_before_it_is(tmp_path, name):
    folder = interrupted(tmp_path)
    path = checkpoints.found(folder)[0] / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    progress = StopAt(99)
    train(tiny.config(tbptt=True), folder, resume=True, progress=progress)
    assert progress.said[0].endswith(f"{name}.safetensors is truncated or was changed; trying the checkpoint before it")
    assert progress.said[1].endswith("step-000000008")
    assert (folder / "checkpoints" / "refused-step-000000010").exists(), "what was refused is not deleted"
    assert len(checkpoints.found(folder)) == 2
    train(tiny.config(tbptt=True), tmp_path / "straight", progress=Quiet())
    assert numbers(folder) == numbers(tmp_path / "straight")
    assert weights(folder) == weights(tmp_path / "straight")


def test_when_no_checkpoint_is_whole_each_reason_is_given_and_nothing_is_lost(tmp_path):
    folder = interrupted(tmp_path)
    for path in checkpoints.found(folder):
        (path / "checkpoint.json").write_text("{")
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"no checkpoint of .* can be used: .*step-000000010.*step-000000008"):
        train(tiny.config(tbptt=True), folder, resume=True, progress=Quiet())
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_model_or_version_is_refused(tmp_path):
    folder = interrupted(tmp_path)
    for path in checkpoints.found(folder):
        listed = json.loads((path / "checkpoint.json").read_text())
        other = {"config_hash": "0123"} if path.name.endswith("10") else {"format": "recurra-checkpoint-0"}
        (path / "checkpoint.json").write_text(json.dumps({**listed, **other}))
    with pytest.raises(RunError, match=r"is of a TinyModel 0123, not of this TinyModel .*another version of recurra"):
        train(tiny.config(tbptt=True), folder, resume=True, progress=Quiet())


def test_changed_settings_are_listed_and_refused(tmp_path):
    folder = interrupted(tmp_path)
    changed = tiny.config(tbptt=True, steps=31, arguments={"width": 13})
    with pytest.raises(RunError, match=r"arguments.width was 12 and is 13; steps was 30 and is 31"):
        train(changed, folder, resume=True, progress=Quiet())
    assert read_settings(folder) == tiny.config(tbptt=True)


def test_a_folder_without_a_run_or_of_another_version_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        train(tiny.config(), tmp_path / "nowhere", resume=True, progress=Quiet())
    folder = interrupted(tmp_path)
    config = read_config(folder)
    config["recurra"]["format"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="another version of recurra"):
        train(tiny.config(tbptt=True), folder, resume=True, progress=Quiet())


@pytest.fixture
def full_disk(monkeypatch):
    """No file of this process may grow beyond a limit: the write itself fails, as on a full disk."""
    # or Python would keep the first bytes of a module's code for the next process
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [100, 1000, 5000])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, full_disk, most):
    """The limit is met by the metrics, by a checkpoint's description or by its weights."""
    folder = interrupted(tmp_path)
    before = {path.name: path.stat().st_size for path in checkpoints.found(folder)[0].iterdir()}
    full_disk(most)
    with pytest.raises(RunError, match=r"the disk is full: the last checkpoint is .*; make room and resume"):
        train(tiny.config(tbptt=True), folder, resume=True, progress=Quiet())
    full_disk(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    newest = checkpoints.found(folder)[0]
    assert {path.name: path.stat().st_size for path in newest.iterdir()} == before
    assert not [path for path in folder.rglob(".*")], "no half of a file is left"
    train(tiny.config(tbptt=True), folder, resume=True, progress=Quiet())
    train(tiny.config(tbptt=True), tmp_path / "straight", progress=Quiet())
    assert numbers(folder) == numbers(tmp_path / "straight")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", MIXERS)
def test_every_architecture_goes_on_to_the_same_numbers(tmp_path, monkeypatch, name):
    """With its own kernels, dropout and, where the state is of constant size, the state carried."""
    monkeypatch.setattr(result, "SAMPLE", 5)
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 50)
    config = Config(
        source=str(text), arguments={"width": 16, "depth": 2, "pattern": name, "dropout": 0.1}, batch=3, length=33,
        steps=5, warmup=2, evaluate_every=4, evaluation_tokens=99, checkpoint_every=3, tbptt=not MIXERS[name].grows,
        threads=1,
    )  # fmt: skip
    train(config, tmp_path / "straight", progress=Quiet())
    tiny.killed(tmp_path / "straight", tmp_path / "run", 3)
    train(config, tmp_path / "run", resume=True, progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
