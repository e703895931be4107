"""Streams without end: each step once, nothing reset, scored before it is learned from, and resumed to the same."""

import json

import pytest
import torch
from train import tiny
from typer.testing import CliRunner

from recurra.cli import app
from recurra.models import MODELS
from recurra.tasks import make, open_source
from recurra.train import Config, RunError, metrics, train
from recurra.train.progress import Quiet
from recurra.train.stream import FOR_EVER, Stream, health


def config(**changed):
    settings = dict(
        source="flip_flop", arguments={"width": 16, "depth": 1, "pattern": "gru"}, batch=2, length=8, steps=40,
        warmup=2, learning_rate=1e-2, evaluate_every=10, checkpoint_every=20, tbptt=True, endless=True, threads=1,
    )  # fmt: skip
    return Config(**{**settings, **changed})


def lines(folder, key="held_out"):
    return [line for line in metrics.read(folder) if key in line]


def test_rows_go_on_without_a_reset():
    task = make({"task": "flip_flop"})
    stream, plain = Stream(task), task.batch("train", 3, 2, 8, 0, carried=True)
    batch = stream.batch("train", 3, 2, 8, 0, carried=True)
    assert plain.reset is not None and batch.reset is None
    assert torch.equal(batch.inputs, plain.inputs) and stream.batches(2, 8) == FOR_EVER


def test_each_step_of_a_text_is_met_once(tmp_path):
    # ninety different bytes to learn from
    (tmp_path / "text").write_bytes(bytes(range(33, 123)) + b"a" * 90)
    stream = Stream(open_source(tmp_path / "text", held_out=0.5))
    seen = [stream.batch("train", i, 3, 10, 0, carried=True).inputs for i in range(stream.batches(3, 10))]
    met = torch.cat([x.flatten() for x in seen]).tolist()
    assert len(met) == len(set(met)) == 3 * 3 * 10 == 90
    result = train(config(source=str(tmp_path / "text"), task={"held_out": 0.5}, batch=3, length=10), tmp_path / "run")
    assert result.steps == 3 and len(lines(tmp_path / "run")) == 1
    with pytest.raises(RunError, match="90 steps: too few to be met once by 3 rows of 50"):
        stream.batches(3, 50)


def test_the_score_is_of_what_was_said_before_learning(tmp_path):
    train(config(evaluate_every=1, steps=2), tmp_path / "run", progress=Quiet())
    stream = Stream(make({"task": "flip_flop"}))
    torch.manual_seed(0)
    model = MODELS["forecaster"](width=16, depth=1, pattern="gru", **stream.model_arguments())
    batch = stream.batch("train", 0, 2, 8, 0, carried=True)
    right, count = stream.score(model(batch.inputs)[0], batch)
    assert lines(tmp_path / "run")[0]["held_out"] == right / count
    with pytest.raises(RunError, match="nothing was scored"):
        stream.take()


@pytest.mark.parametrize("rule", ["bptt", "tbptt", "fptt"])
def test_it_learns_as_it_goes_and_its_file_does_not_grow_with_every_step(tmp_path, rule):
    arguments = {"bptt": {}, "tbptt": {"window": 8}, "fptt": {"parts": 2}}[rule]
    settings = config(steps=72, rule=rule, rule_arguments=arguments, evaluate_every=12, length=16)
    result = train(settings, tmp_path / "run", progress=Quiet())
    told = lines(tmp_path / "run")
    assert len(told) == len(lines(tmp_path / "run", "loss")) == 6
    assert told[-1]["held_out"] == result.score > told[0]["held_out"] + 0.15
    assert result.measure == "accuracy before learning"
    assert {line["lr"] for line in lines(tmp_path / "run", "loss")} == {1e-2}
    assert all(0 < line["state_max"] < 100 and line["resident_bytes"] > 1e6 for line in told)


def test_the_largest_number_of_a_state_is_no_flag_and_no_counter():
    counters = torch.ones(2, dtype=torch.bool), torch.tensor([9])
    assert health((*counters, (torch.tensor([[-3.0, 1.0]]), torch.tensor([3 + 4j]))))["state_max"] == 5
    assert health(counters)["state_max"] == health(None)["state_max"] == 0


def test_a_stopped_stream_goes_on_to_the_same_numbers(tmp_path):
    train(config(), tmp_path / "whole", progress=Quiet())
    tiny.killed(tmp_path / "whole", tmp_path / "again", 20)
    train(config(), tmp_path / "again", resume=True, progress=Quiet())
    one, two = ((tmp_path / x / "model.safetensors").read_bytes() for x in ("whole", "again"))
    assert one == two
    scores = [[line["held_out"] for line in lines(tmp_path / x)] for x in ("whole", "again")]
    assert scores[0] == scores[1] and len(scores[0]) == 4


def test_a_run_that_died_before_its_result_has_its_last_score(tmp_path):
    score = train(config(), tmp_path / "run", progress=Quiet()).score
    (tmp_path / "run/result.json").unlink()
    assert train(config(), tmp_path / "run", resume=True, progress=Quiet()).score == score


def test_without_a_carried_state_there_is_no_stream():
    with pytest.raises(RunError, match="needs tbptt"):
        config(tbptt=False)


def test_a_curriculum_cannot_be_endless(tmp_path):
    with pytest.raises(RunError, match="a curriculum asks for its own rows"):
        train(config(source="window_parity", rule="curriculum"), tmp_path / "run", progress=Quiet())
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path):
    words = ["--mixer", "gru", "--width", "16", "--depth", "1", "--batch", "2", "--length", "8", "--steps", "10"]
    done = CliRunner().invoke(app, ["train", "flip_flop", *words, "--endless", "--run", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    settings = json.loads((tmp_path / "run/config.json").read_text())["training"]
    assert settings["endless"] and settings["tbptt"] and settings["steps"] == 10
