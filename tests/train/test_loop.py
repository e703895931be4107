"""Training itself: the same numbers every time, the state carried where it is asked for, errors in one sentence."""

import io
import json
import math
import pathlib

import pytest
import torch
from train import tiny

from recurra.files import alone
from recurra.tasks import TASKS, make
from recurra.train import CompareConfig, Config, RunError, compare, loop, metrics, train
from recurra.train.board import QuietBoard
from recurra.train.evaluate import evaluate
from recurra.train.progress import Lines, Quiet
from recurra.train.run import begin, exactly


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(tiny.MODELS, "tiny", tiny.TinyModel)
    monkeypatch.setitem(TASKS, "tiny", tiny.TinyTask)


def numbers(folder: pathlib.Path) -> list[dict]:
    """The lines of a run without what the clock says."""
    timed = ("seconds", "tokens_per_second", "memory_bytes")
    return [{k: v for k, v in line.items() if k not in timed} for line in metrics.read(folder)]


def weights(folder: pathlib.Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_leaves_what_is_promised_and_learns(tmp_path):
    result = train(tiny.config(steps=60), tmp_path / "run", progress=Quiet())
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "model.safetensors", "metrics.jsonl", "result.json", "checkpoints"}
    lines = metrics.read(tmp_path / "run")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 61))
    assert set(steps[0]) == {"step", "tokens", "seconds", "loss", "grad_norm", "lr", "tokens_per_second"}
    held_out = [line for line in lines if "held_out" in line]
    assert [line["step"] for line in held_out] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert set(held_out[0]) == {"step", "tokens", "seconds", "held_out", "measure"}
    assert steps[-1]["tokens"] == 60 * 3 * 8 == result.tokens
    assert result.score == held_out[-1]["held_out"] < 1.9 < held_out[0]["held_out"]
    assert json.loads((tmp_path / "run/result.json").read_text())["score"] == result.score
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["training"] == tiny.config(steps=60).to_json() and config["task"]["task"] == "tiny"


@pytest.mark.parametrize("changed", [{}, {"tbptt": True}, {"precision": "bfloat16"}])
def test_one_seed_is_one_run_and_another_is_another(tmp_path, changed):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(changed) + seed * 17)
        torch.rand(7)
        train(tiny.config(seed=seed, **changed), tmp_path / folder, progress=Quiet())
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b") != numbers(tmp_path / "c")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_bfloat16_is_another_precision_and_leaves_float32_weights(tmp_path):
    train(tiny.config(), tmp_path / "a", progress=Quiet())
    train(tiny.config(precision="bfloat16"), tmp_path / "b", progress=Quiet())
    one, two = (numbers(tmp_path / x)[0]["loss"] for x in "ab")
    assert one != two and one == pytest.approx(two, rel=0.02)
    assert json.loads((tmp_path / "b/config.json").read_text())["torch_dtype"] == "float32"


class Recorder(tiny.TinyModel):
    """Keeps the states it is given."""

    def __init__(self, *, vocabulary: int, width: int):
        super().__init__(vocabulary=vocabulary, width=width)
        self.given, self.returned = [], []
        Recorder.last = self

    def forward(self, inputs, state=None, clock=None):
        self.given.append((state, clock))
        outputs, after = super().forward(inputs, state, clock)
        self.returned.append(after)
        return outputs, after


@pytest.mark.parametrize("tbptt", [False, True])
def test_the_state_is_carried_without_its_history_or_not_at_all(tmp_path, monkeypatch, tbptt):
    monkeypatch.setitem(tiny.MODELS, "tiny", Recorder)
    train(tiny.config(steps=4, evaluate_every=99, tbptt=tbptt), tmp_path / "run", progress=Quiet())
    given, returned = Recorder.last.given, Recorder.last.returned
    assert given[0][0] is None
    for (state, clock), before in zip(given[1:4], returned[:3], strict=True):
        assert (clock is not None) == tbptt, "what the batch says of resets reaches the model"
        if not tbptt:
            assert state is None
        else:
            assert torch.equal(state[0], before[0]) and not state[0].requires_grad
    evaluation = given[4:]
    assert len(evaluation) == 2 and evaluation[0][0] is None, "held-out data begins with no memory of the training"
    assert (evaluation[1][0] is not None) == tbptt


def test_a_window_over_all_of_a_sequence_is_the_whole_gradient():
    """Two windows of 8 from a carried state are the outputs of 16 whole; one window of 16 has its gradient too."""
    config = tiny.config(arguments={"width": 12, "dropout": 0.0}, tbptt=True, length=16)
    task = make({"task": "tiny"})
    model = begin(config, task).model
    batch = task.batch("train", 0, 3, 16, 0, carried=True)._replace(reset=None)
    whole = torch.autograd.grad(task.loss(model(batch.inputs)[0], batch), model.cell.weight_hh)[0]
    state, pieces = None, []
    for start in (0, 8):
        outputs, state = model(batch.inputs[:, start : start + 8], state)
        pieces.append(outputs)
    joined = torch.autograd.grad(task.loss(torch.cat(pieces, 1), batch), model.cell.weight_hh)[0]
    torch.testing.assert_close(joined, whole)


def test_truncated_and_whole_training_are_one_where_the_window_is_the_sequence(tmp_path, monkeypatch):
    """With a reset at the start of each window nothing is carried: every loss and weight is that of whole sequences."""

    class Fresh(tiny.TinyTask):
        def batch(self, split, index, size, length, seed, carried=False):
            batch = super().batch(split, index, size, length, seed)
            reset = torch.zeros(size, length, dtype=torch.bool)
            reset[:, 0] = True
            return batch._replace(reset=reset)

    monkeypatch.setitem(TASKS, "tiny", Fresh)
    for tbptt in (False, True):
        train(tiny.config(tbptt=tbptt), tmp_path / str(tbptt), progress=Quiet())
    assert numbers(tmp_path / "True") == numbers(tmp_path / "False")
    assert weights(tmp_path / "True") == weights(tmp_path / "False")


def test_evaluation_is_the_same_for_all_seeds_and_touches_nothing():
    task = make({"task": "tiny"})
    run = begin(tiny.config(), task)
    run.model.train()
    random = torch.get_rng_state()
    scores = {evaluate(run.model, task, tiny.config(seed=seed)) for seed in (0, 5)}
    assert len(scores) == 1 and torch.equal(torch.get_rng_state(), random) and run.model.training
    total = [task.batch("test", i, 3, 8, 0) for i in range(2)]
    run.model.eval()
    expected = sum(task.score(run.model(b.inputs)[0], b)[0] for b in total) / sum(b.targets.numel() for b in total)
    assert scores.pop() == pytest.approx(expected)


def test_evaluation_may_be_longer_than_training():
    task, config = make({"task": "tiny"}), tiny.config(evaluation_length=24)
    run = begin(config, task)
    batches = [task.batch("test", i, 3, 24, 0) for i in range(config.evaluation_tokens // (3 * 24) or 1)]
    run.model.eval()
    scores = [task.score(run.model(batch.inputs)[0], batch) for batch in batches]
    expected = sum(total for total, _ in scores) / sum(count for _, count in scores)
    assert evaluate(run.model, task, config) == pytest.approx(expected)
    assert evaluate(run.model, task, config) != evaluate(run.model, task, tiny.config())


def test_carried_evaluation_is_one_long_read():
    """The score over windows with the state carried equals that of reading them as one sequence."""

    class Still(tiny.TinyTask):
        def batch(self, split, index, size, length, seed, carried=False):
            whole = tiny.TinyTask.batch(self, split, 0, size, 16, seed)
            cut = slice(index * 8, index * 8 + 8)
            return whole._replace(inputs=whole.inputs[:, cut], targets=whole.targets[:, cut])

    config, task = tiny.config(tbptt=True), Still()
    run = begin(config, task)
    whole = tiny.TinyTask().batch("test", 0, 3, 16, 0)
    run.model.eval()
    total, count = task.score(run.model(whole.inputs)[0], whole)
    assert evaluate(run.model, task, config) == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_it_does_harm(tmp_path, monkeypatch, where):
    class Bad(tiny.TinyTask):
        calls = 0

        def loss(self, outputs, batch):
            loss = super().loss(outputs, batch)
            if not outputs.requires_grad:
                return loss
            Bad.calls += 1
            if Bad.calls < 11:
                return loss
            # a square root at zero is finite and its slope is not
            return loss * math.nan if where == "loss" else loss + (outputs * 0).sum().sqrt()

    monkeypatch.setitem(TASKS, "tiny", Bad)
    with pytest.raises(RunError, match=rf"the {where} is (nan|inf) at step 11: .*step-000000008.*learning rate"):
        train(tiny.config(), tmp_path / "run", progress=Quiet())
    lines = [line for line in metrics.read(tmp_path / "run") if "loss" in line]
    assert lines[-1]["step"] == 10
    assert (tmp_path / "run/checkpoints/step-000000008").exists()


def test_a_growing_state_cannot_be_carried(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.TinyModel, "grows", True)
    with pytest.raises(RunError, match="grows"):
        train(tiny.config(tbptt=True), tmp_path / "run", progress=Quiet())


@pytest.mark.parametrize("source", ["spoken_digits", "spiral_paths", "sequential_digits"])
def test_a_model_that_takes_a_sequence_whole_carries_no_state(source, tmp_path):
    with pytest.raises(RunError, match=r"^tbptt cannot teach (ctc|latent_ode|classifier): "):
        train(Config(source=source, tbptt=True), tmp_path / "run", progress=Quiet())
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_built_is_said_in_one_sentence(tmp_path):
    for wrong in ({"model": "language_modle"}, {"arguments": {"widht": 3}}, {"task": {"nose": 1}}):
        with pytest.raises(ValueError) as caught:
            train(tiny.config(**wrong), tmp_path / "run", progress=Quiet())
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists(), "nothing was begun"


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        train(tiny.config(), tmp_path / "run", progress=Quiet())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def _refuse(self, outputs, batch):
    raise ValueError("this loss takes no such outputs")


def test_a_run_that_is_refused_at_its_first_update_leaves_nothing(tmp_path, monkeypatch):
    before, hidden = tmp_path / "before", tmp_path / "hidden"
    before.mkdir()
    hidden.mkdir()
    (hidden / ".thesis.tex").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(tiny.TinyTask, "loss", _refuse)
        for folder in (tmp_path / "new/er/run", before, hidden):
            with pytest.raises(ValueError, match="takes no such"):
                train(tiny.config(), folder, progress=Quiet())
    assert {x.name for x in tmp_path.iterdir()} == {"before", "hidden"} and not list(before.iterdir())
    assert [x.name for x in hidden.iterdir()] == [".thesis.tex"]
    train(tiny.config(steps=2), hidden, progress=Quiet())


def test_an_error_later_or_of_a_run_that_was_resumed_takes_nothing(tmp_path, monkeypatch):
    train(tiny.config(steps=8), tmp_path / "run", progress=Quiet())
    tiny.killed(tmp_path / "run", tmp_path / "later", 4)
    tiny.killed(tmp_path / "run", tmp_path / "first", 0)
    held = {path: sorted(path.rglob("*")) for path in (tmp_path / "later", tmp_path / "first")}
    monkeypatch.setattr(tiny.TinyTask, "loss", _refuse)
    for path, names in held.items():
        with pytest.raises(ValueError, match="takes no such"):
            train(tiny.config(steps=8), path, resume=True, progress=Quiet())
        assert sorted(path.rglob("*")) == names


def test_plain_lines_tell_steps_and_scores(tmp_path):
    out = io.StringIO()
    train(tiny.config(), tmp_path / "run", progress=Lines(out, pause=0.0))
    said = out.getvalue().splitlines()
    assert sum("held-out bits per symbol" in line for line in said) == 5
    assert sum("tokens/s" in line for line in said) == 30 and said[0].startswith("step 1/30  loss ")


def test_threads_and_algorithms_are_given_back():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with exactly(tiny.config(threads=2)):
        assert torch.get_num_threads() == 2 and torch.are_deterministic_algorithms_enabled()
        # who asks for none has as many as there are, and OMP_NUM_THREADS says so to torch
        with exactly(tiny.config(threads=0)):
            assert torch.get_num_threads() == 2
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_two_processes_do_not_train_in_one_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    held = pytest.raises(ValueError, match=r"another process writes into .*run: wait for its end, or give another")
    # a handle of its own is held as another process's is
    with alone(folder), held:
        train(tiny.config(), folder, progress=Quiet())
    assert not list(folder.iterdir())

    def other(*arguments):
        """What another process does while this one makes its model."""
        monkeypatch.setattr(loop, "begin", begin)
        train(tiny.config(), folder, progress=Quiet())
        return begin(*arguments)

    monkeypatch.setattr(loop, "begin", other)
    with pytest.raises(RunError, match="is not empty"):
        train(tiny.config(), folder, progress=Quiet())
    (folder / "result.json").unlink()
    before = numbers(folder)
    with alone(folder), held:
        train(tiny.config(), folder, resume=True, progress=Quiet())
    assert numbers(folder) == before


def test_two_processes_do_not_compare_in_one_folder(tmp_path):
    settings = CompareConfig(source="parity", mixers=("elman",), parameters=20_000, arguments={"depth": 1})
    with alone(tmp_path), pytest.raises(ValueError, match="another process writes into"):
        compare(settings, tmp_path, progress=QuietBoard())
    assert not list(tmp_path.iterdir())
