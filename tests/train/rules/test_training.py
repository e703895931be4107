"""Rules in a run: whole models of several layers, what metrics say, and a stop that changes nothing."""

import pytest
import torch
from train import tiny
from train.rules import one
from train.test_loop import numbers

from recurra import Clock
from recurra.models import MODELS, Forecaster, LanguageModel
from recurra.tasks import open_source
from recurra.train import Config, RunError, metrics, train
from recurra.train.progress import Quiet
from recurra.train.rules import RULES, build

# what rules need that cannot learn adding as the others do
SPECIAL = {
    "online_lru": {"arguments": {"width": 8, "depth": 2, "pattern": "lru", "hidden": 8}},
    "fptt": {"rule_arguments": {"parts": 2}},
    "target_dynamics": {"source": "recordings", "task": {"units": 8, "recorded": 2}},
    "curriculum": {"source": "window_parity", "task": {"longest": 3}},
}


def config(rule, **changed):
    arguments = {"width": 8, "depth": 2, "pattern": "elman", "hidden": 8}
    settings = dict(
        source="adding", arguments=arguments, batch=3, length=6, steps=4, warmup=1, evaluate_every=4,
        evaluation_tokens=18, checkpoint_every=2, threads=1, rule=rule,
    )  # fmt: skip
    return Config(**{**settings, **changed})


@pytest.mark.parametrize("rule", [*RULES])
def test_a_run_learns_by_the_rule_and_resumes_to_the_same_numbers(tmp_path, rule):
    settings = config(rule, tbptt=True, **SPECIAL.get(rule, {}))
    result = train(settings, tmp_path / "straight", progress=Quiet())
    assert result.steps == 4
    tiny.killed(tmp_path / "straight", tmp_path / "run", 2)
    train(settings, tmp_path / "run", resume=True, progress=Quiet())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    (said,) = [line for line in metrics.read(tmp_path / "run") if "memory_bytes" in line]
    assert said["rule"] == rule and said["memory_bytes"] > 0


def gradients(rule, model, task, some, **keywords):
    settings = config(rule, rule_arguments=keywords)
    model.zero_grad()
    made = build(model, task, settings)
    made.learn(some, None, lambda loss: None)
    return {name: p.grad for name, p in model.named_parameters()}, made


@pytest.mark.parametrize("pattern", ["gru", "mingru"])
def test_of_several_layers_the_last_and_all_above_have_the_whole_gradient(pattern):
    torch.manual_seed(0)
    model = Forecaster(inputs=2, width=8, depth=2, pattern=pattern, hidden=8).double()
    task = open_source("adding")
    some = task.batch("train", 0, 3, 6, 0)
    some = some._replace(inputs=some.inputs.double())
    truth, _ = gradients("bptt", model, task, some)
    found, _ = gradients("rtrl", model, task, some)
    above = ("backbone.blocks.1.mixer.", "backbone.blocks.1.mlp", "backbone.norm", "out")
    last = [k for k in truth if k.startswith(above)]
    assert len(last) > 6
    for key in last:
        assert float((found[key] - truth[key]).abs().max()) < 1e-7 * float(truth[key].abs().max() + 1e-3), key
    below = "embedding.weight"
    assert not torch.allclose(found[below], truth[below]), "time credit is within a layer"


def test_online_memory_does_not_grow_with_length_and_backpropagation_does():
    kept = {}
    for rule in ("bptt", "tbptt", "rtrl"):
        for length in (16, 64):
            torch.manual_seed(0)
            task = open_source("adding")
            model = Forecaster(inputs=2, width=8, depth=1, pattern="indrnn", hidden=8)
            keywords = {"window": 8} if rule == "tbptt" else {}
            _, made = gradients(rule, model, task, task.batch("train", 0, 2, length, 0), **keywords)
            kept[rule, length] = made.memory_bytes
    assert kept["rtrl", 16] == kept["rtrl", 64] and kept["bptt", 64] > 3 * kept["bptt", 16]
    assert kept["tbptt", 64] == kept["tbptt", 16]


def test_a_window_over_all_is_the_whole_gradient_and_a_short_one_is_not():
    mixer, some = one.build("gru"), one.batch()
    wanted = one.whole(mixer, some)
    for window, same in ((7, True), (3, False)):
        found, _ = one.taught(RULES["tbptt"], mixer, some, window=window)
        near = all(torch.allclose(found[k], wanted[k], rtol=1e-12, atol=1e-12) for k in wanted)
        assert near == same
    state, total = None, 0.0
    for piece in (slice(0, 3), slice(3, 6), slice(6, 7)):
        clock = Clock(some.reset, some.valid).cut(piece.start, piece.stop)
        y, state = mixer(some.inputs[:, piece], state, clock)
        total, state = total + (y * some.targets[:, piece]).sum(), tuple(x.detach() for x in state)
    mixer.zero_grad()
    total.backward()
    for name, p in mixer.named_parameters():
        torch.testing.assert_close(found[name], p.grad)


def test_times_between_steps_are_honoured_or_refused():
    mixer, some = one.build("cfc"), one.batch()
    some = some._replace(dt=torch.rand(2, 7, dtype=torch.float64) + 0.1)
    found, _ = one.taught(RULES["tbptt"], mixer, some, window=7)
    for name, slope in one.whole(mixer, some).items():
        torch.testing.assert_close(found[name], slope)
    with pytest.raises(RunError, match="these have times between them"):
        one.taught(RULES["rtrl"], mixer, some)


def test_a_window_that_only_reads_says_nothing():
    task = open_source("letter_to_sound")
    model = MODELS["seq2seq"](width=8, depth=1, **task.model_arguments())
    found, _ = gradients("tbptt", model, task, task.batch("train", 0, 3, 24, 0), window=1)
    assert all(x.isfinite().all() for x in found.values() if x is not None)
    assert found["out.weight"] is not None and found["out.weight"].abs().max() > 0


@pytest.mark.parametrize("rule", ["tbptt", "fptt", "rtrl"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("classifier", {"inputs": 1, "classes": 2}), ("ctc", {"inputs": 2, "labels": 2}), ("latent_ode", {"inputs": 2})],
)
def test_what_must_have_a_sequence_whole_is_refused(rule, name, arguments):
    model = MODELS[name](width=8, depth=1, **arguments)
    with pytest.raises(RunError, match=f"{rule} cannot teach {name}: "):
        build(model, one.Weighed(), Config(source="", rule=rule))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rule": "rtrk"}, "did you mean 'rtrl'"),
        ({"rule": "snap", "rule_arguments": {"step": 2}}, "did you mean 'steps'"),
        ({"rule": "tbptt", "rule_arguments": {"window": 0}}, "at least 1"),
        ({"rule": "rtrl", "precision": "bfloat16"}, "float32"),
        ({"rule": "rtrl", "arguments": {"width": 8, "depth": 1, "dropout": 0.1}}, "dropout"),
        ({"rule": "eprop", "arguments": {"width": 8, "depth": 1, "pattern": "mingru"}}, "eprop cannot teach MinGRU"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, changed, reason):
    with pytest.raises(RunError, match=reason) as caught:
        train(config(**{"rule": "rtrl", **changed}), tmp_path / "run", progress=Quiet())
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_layers_that_share_a_block_are_refused():
    model = LanguageModel(vocabulary=8, width=8, depth=2, pattern="elman", hidden=0, shared=["elman"])
    with pytest.raises(RunError, match="share a block"):
        RULES["rtrl"](model, one.Weighed(), config("rtrl"))
