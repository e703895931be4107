"""Sparse runs: what is absent stays zero to the last file, a run that was cut goes on as if it had not been."""

import json

import pytest
import torch
from safetensors.torch import load_file
from train.test_loop import numbers, weights
from train.test_resume import StopAt

from recurra.tasks import make
from recurra.train import Config, RunError, Stopped, checkpoints, metrics, train
from recurra.train.masks import MASKS
from recurra.train.progress import Quiet
from recurra.train.report import report
from recurra.train.run import begin


def config(mask="rigl", rule="bptt", pattern="elman", given=None, **changed):
    settings = dict(
        source="parity", arguments={"width": 16, "depth": 1, "pattern": pattern, "hidden": 0}, batch=4, length=12,
        steps=16, warmup=2, learning_rate=1e-2, evaluate_every=8, evaluation_tokens=96, checkpoint_every=5, threads=1,
        rule=rule, mask=mask, mask_arguments=({} if mask == "static" else {"every": 4}) | (given or {}),
    )  # fmt: skip
    return Config(**{**settings, **changed})


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("step", [3, 8])
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, name, step):
    settings = config(name, tbptt=True, given={"density": 0.3})
    straight = train(settings, tmp_path / "straight", progress=Quiet())
    with pytest.raises(Stopped):
        train(settings, tmp_path / "run", progress=StopAt(step))
    assert (checkpoints.found(tmp_path / "run")[0] / "mask.safetensors").exists()
    resumed = train(settings, tmp_path / "run", resume=True, progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert (resumed.score, resumed.density) == (straight.score, straight.density)
    rewired = [line["step"] for line in metrics.read(tmp_path / "run") if "rewired" in line]
    assert set(rewired) <= {4, 8} and bool(rewired) == (name != "static")


@pytest.mark.parametrize("name", MASKS)
def test_the_weights_of_a_run_are_as_sparse_as_its_mask(tmp_path, name):
    ended = train(config(name, given={"density": 0.3}), tmp_path, progress=Quiet())
    connections = load_file(checkpoints.found(tmp_path)[0] / "mask.safetensors")
    kept, averages = load_file(tmp_path / "model.safetensors"), checkpoints.found(tmp_path)[0] / "optimiser.safetensors"
    memory = load_file(averages)
    assert set(connections) == {f"backbone.blocks.0.mixer.cell.{part}" for part in ("input_weight", "weight")}
    for part, x in connections.items():
        assert not kept[part][~x].any() and kept[part][x].any()
        for key in ("exp_avg", "exp_avg_sq"):
            assert not memory[f"{part}/{key}"][~x].any()
    count, size = (sum(int(f(x)) for x in connections.values()) for f in (torch.sum, torch.numel))
    assert count == round(0.3 * size) and ended.density == count / size
    assert ended.parameters == sum(x.numel() for x in kept.values()) - (size - count)
    assert ended.density in [line.get("density") for line in metrics.read(tmp_path)]
    assert "<dt>density</dt><dd>0.3" in report(tmp_path).read_text(encoding="utf-8")


def test_a_dense_run_says_nothing_of_density(tmp_path):
    assert train(config(None, mask_arguments={}, steps=2), tmp_path, progress=Quiet()).density is None
    assert "<dt>density</dt>" not in report(tmp_path).read_text(encoding="utf-8")
    assert not (checkpoints.found(tmp_path)[0] / "mask.safetensors").exists()


def test_a_result_that_was_written_without_a_density_is_read(tmp_path):
    ended = train(config(None, mask_arguments={}, steps=2), tmp_path, progress=Quiet())
    result = json.loads((tmp_path / "result.json").read_text())
    del result["density"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    same = config(None, mask_arguments={}, steps=2)
    assert train(same, tmp_path, resume=True, progress=Quiet()) == ended


def test_a_full_mask_is_no_mask(tmp_path):
    """At density 1 nothing can be rewired, and nothing is hidden: the numbers are those of a dense run."""
    train(config("set", given={"density": 1.0}), tmp_path / "full", progress=Quiet())
    train(config(None, mask_arguments={}), tmp_path / "dense", progress=Quiet())
    dense = [{k: v for k, v in line.items() if k != "density"} for line in numbers(tmp_path / "full")]
    assert dense == numbers(tmp_path / "dense")
    assert weights(tmp_path / "full") == weights(tmp_path / "dense")


@pytest.mark.parametrize("rule", ["bptt", "tbptt", "rtrl", "snap", "uoro", "kf_rtrl", "eprop", "rflo"])
def test_a_static_mask_holds_by_every_rule_that_hands_over_gradients(tmp_path, rule):
    ended = train(config("static", rule, steps=3, length=4, given={"density": 0.3}), tmp_path, progress=Quiet())
    connections = load_file(checkpoints.found(tmp_path)[0] / "mask.safetensors")
    kept = load_file(tmp_path / "model.safetensors")
    assert ended.steps == 3 and all(not kept[part][~x].any() for part, x in connections.items())


REFUSED = {
    "a rule that keeps weights": (config(rule="fptt"), "fptt pulls weights to a mean of its own"),
    "a rule that solves": (
        config(rule="force", source="recordings", length=16), "force solves for whole rows of weights"
    ),
    "a rule that looks once": (config(rule="rtrl", length=4), "only the mask static stays as it was"),
    "no matrix": (config(pattern="indrnn", given={"where": "*.cell.*"}), r"no matrix whose name matches '\*.cell.\*'"),
    "no mask": (config("rigs", mask_arguments={}), "there is no mask 'rigs', did you mean 'rigl'"),
    "no keyword": (config(given={"densty": 0.1}), "rigl has no keyword 'densty', did you mean 'density'"),
    "static moves": (config("static", given={"every": 3}), "static has no keyword 'every'"),
    "density": (config(given={"density": 0.0}), "density is 0.0: it must be above 0 and at most 1"),
    "density and modules": (config(given={"density": 0.1, "modules": 4}), "give no density or allocation beside them"),
    "reach alone": (config(given={"reach": 2}), "give modules too"),
    "modules": (config(given={"modules": 17}), "no matrix has 17 inputs and outputs"),
    "unseen": (config("hebbian", given={"where": "embedding.weight"}), "hebbian sees the activities of linear layers"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_masked_is_refused_in_one_sentence(why):
    settings, said = REFUSED[why]
    with pytest.raises(RunError, match=said) as caught:
        begin(settings, make({"task": settings.source, **settings.task}))
    assert "\n" not in str(caught.value)


def test_a_model_without_matrices_is_refused_unless_they_are_named():
    """A highway network's matrices are its own, and no part says what they are."""
    with pytest.raises(RunError, match="this model has no matrix in a linear layer, a convolution or a dense cell"):
        begin(config(pattern="rhn"), make({"task": "parity"}))
    run = begin(config(pattern="rhn", given={"where": "*.mixer.*weight"}), make({"task": "parity"}))
    assert set(run.masking.mask.connections) == {
        f"backbone.blocks.0.mixer.{part}" for part in ("input_weight", "weight")
    }


def test_keywords_of_no_mask_are_refused():
    with pytest.raises(RunError, match="no mask is named, and every would be its keyword"):
        config(None, given={"every": 3}, mask_arguments={"every": 3})


def test_modules_in_a_run(tmp_path):
    settings = config("static", given={"modules": 4, "reach": 2}, steps=3)
    ended = train(settings, tmp_path, progress=Quiet())
    assert ended.density == 0.5
    weight = load_file(tmp_path / "model.safetensors")["backbone.blocks.0.mixer.cell.weight"][0, 0]
    blocks = weight.unflatten(0, (4, 4)).unflatten(2, (4, 4)).abs().sum((1, 3)) > 0
    assert blocks.diagonal().all() and (blocks.sum(0) == 2).all()


def test_hebbian_says_at_the_first_step_what_it_cannot_see(tmp_path, monkeypatch):
    """The read-out's weight used without calling the layer."""
    settings = config("hebbian", arguments={"width": 16, "depth": 1, "pattern": "elman", "tied": False})
    from recurra.models.language_model import LanguageModel

    monkeypatch.setattr(LanguageModel, "read", lambda self, x: torch.nn.functional.linear(x, self.out.weight))
    with pytest.raises(RunError, match=r"the mask cannot be rewired: hebbian saw nothing of out\.weight"):
        train(settings, tmp_path, progress=Quiet())
    assert [line for line in metrics.read(tmp_path) if "loss" in line] == []
