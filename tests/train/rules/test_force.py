"""FORCE: recursion is ridge regression at every step, chaos is tamed, and feedback is recurrent weights of low rank."""

import math

import pytest
import torch
from torch.testing import assert_close

from recurra import state as states
from recurra.models import MODELS
from recurra.tasks import make
from recurra.train import Config, RunError, train
from recurra.train.progress import Quiet
from recurra.train.rules.force import Force
from recurra.train.rules.least_squares import RecursiveLeastSquares
from recurra.train.rules.rate_network import absorbed, begin, chaotic, force, full_force, run


@pytest.mark.parametrize("rows", [1, 3])
def test_recursion_is_ridge_regression_of_all_so_far(rows):
    features, targets = torch.randn(60, 7, dtype=torch.float64), torch.randn(60, 2, dtype=torch.float64)
    start = torch.randn(2, 7, dtype=torch.float64)
    learner = RecursiveLeastSquares(7, 2, penalty=0.3, start=start)
    for seen, (r, y) in enumerate(zip(features.split(rows), targets.split(rows), strict=True)):
        before = learner.weight
        assert_close(learner.update(r, y), y - r @ before.T)
        some, wanted = features[: (seen + 1) * rows], targets[: (seen + 1) * rows]
        # the least |Y - R W'|^2 + penalty |W - start|^2
        gram = some.T @ some + 0.3 * torch.eye(7, dtype=torch.float64)
        closed = start.T + torch.linalg.solve(gram, some.T @ (wanted - some @ start.T))
        assert_close(learner.weight, closed.T, rtol=1e-9, atol=1e-9)
        assert_close(learner.inverse, torch.linalg.inv(gram), rtol=1e-9, atol=1e-9)


def test_a_penalty_of_nothing_is_refused():
    with pytest.raises(ValueError, match="penalty is 0"):
        RecursiveLeastSquares(3, 1, penalty=0.0)


def wave(steps):
    phase = 2 * math.pi * torch.arange(steps, dtype=torch.float64) / 120
    return (torch.sin(phase) + 0.5 * torch.sin(2 * phase))[:, None]


def unexplained(said, wanted):
    """The share of the variance that is missed, wherever the phase has drifted to by then it must be the same wave."""
    return float((said - wanted).square().mean().detach() / wanted.var())


def test_without_learning_the_network_is_chaotic():
    network = chaotic(200, gain=2.0, seed=1)
    one = begin(network)
    two = states.each(lambda r: r + 1e-2 * torch.randn_like(r), one)
    for _ in range(1000):
        (_, one), (_, two) = (network(torch.zeros(1, 1, 200), s) for s in (one, two))
    assert (one[0] - two[0]).abs().max() > 0.5


def test_errors_are_small_from_the_first_and_the_wave_goes_on_by_itself():
    network = chaotic(64, seed=1)
    learned = force(network, wave(1800), begin(network), penalty=1.0)
    assert learned.errors[240:].abs().mean() < 0.1 * wave(120).abs().mean()
    said = run(network, learned.read, learned.state, 240)
    assert unexplained(said, wave(2040)[1800:]) < 0.05
    # what was left is nothing like it
    assert unexplained(run(network, learned.read * 0, learned.state, 240), wave(2040)[1800:]) > 0.9


def test_feedback_is_recurrent_weights_of_its_rank():
    network = chaotic(32, inputs=2).double()
    targets = torch.cat([wave(300), wave(330)[30:]], 1)
    learned = force(network, targets, begin(network))
    said, inside = run(network, learned.read, learned.state, 60), absorbed(network, learned.read)
    state, alone = learned.state, []
    for _ in range(60):
        y, state = inside(torch.zeros(1, 1, 32, dtype=torch.float64), state)
        alone.append(y[:, 0] @ learned.read.T)
    assert_close(torch.cat(alone), said, rtol=1e-8, atol=1e-8)
    assert not torch.equal(inside.recurrent, network.recurrent), "the network itself is left alone"


def test_all_recurrent_weights_can_learn_it():
    network = chaotic(64, seed=2)
    before = network.recurrent.clone()
    inside, learned = full_force(network, wave(2400), begin(network))
    state, said = learned.state, []
    for _ in range(240):
        y, state = inside(torch.zeros(1, 1, 64), state)
        said.append(y[:, 0].double() @ learned.read.T)
    assert unexplained(torch.cat(said), wave(2640)[2400:]) < 0.05
    assert torch.equal(network.recurrent, before)
    assert torch.linalg.matrix_rank(inside.recurrent - before) > 1


def config(**changed):
    settings = dict(
        source="recordings", task={"units": 20, "recorded": 2}, arguments={"width": 32, "depth": 1, "pattern": "ctrnn"},
        rule="force", batch=4, length=32, steps=12, evaluate_every=6, evaluation_tokens=256, checkpoint_every=5,
        threads=1,
    )  # fmt: skip
    return Config(**{**settings, **changed})


def test_a_read_out_is_learned_and_nothing_else(tmp_path):
    result = train(config(), tmp_path / "run", progress=Quiet())
    assert result.score < 0.25 * result.chance
    task = make({"task": "recordings", "units": 20, "recorded": 2})
    torch.manual_seed(0)
    fresh = MODELS["forecaster"](width=32, depth=1, pattern="ctrnn", **task.model_arguments())
    learned = MODELS["forecaster"].from_pretrained(tmp_path / "run")
    moved = {n for n, p in fresh.named_parameters() if not torch.equal(p, learned.get_parameter(n))}
    assert moved == {"out.weight", "out.bias"}


def test_the_rule_is_ridge_regression_on_the_features():
    """All rows of all steps of two batches, in closed form; with a carried state in pieces of another length."""
    task, features = make({"task": "recordings", "units": 20, "recorded": 2}), []
    model = MODELS["forecaster"](width=16, depth=1, pattern="ctrnn", **task.model_arguments())
    start = torch.cat([model.out.weight, model.out.bias[:, None]], 1).detach().double()
    rule, kept, batches = Force(model, task, config(tbptt=True), penalty=0.5), None, []
    hook = model.out.register_forward_pre_hook(lambda _, x: features.append(x[0].detach()))
    for index in range(2):
        batches.append(task.batch("train", index, 4, 32, 0, carried=True))
        kept = rule.learn(batches[-1], kept, lambda loss: None)
    hook.remove()
    r = torch.cat([x.flatten(0, 1) for x in features]).double()
    r = torch.nn.functional.pad(r, (0, 1), value=1.0)
    y = torch.cat([b.targets[..., :2].flatten(0, 1) for b in batches]).double()
    gram = r.T @ r + 0.5 * torch.eye(17, dtype=torch.float64)
    closed = start.T + torch.linalg.solve(gram, r.T @ (y - r @ start.T))
    assert_close(kept[2], closed.T, rtol=1e-6, atol=1e-8)
    assert_close(model.out.weight.double(), closed.T[:, :-1], rtol=1e-5, atol=1e-6)
    assert rule.memory_bytes == 8 * (17 * 17 + 2 * 17)


def test_what_force_cannot_teach_is_refused(tmp_path):
    with pytest.raises(RunError, match="forecaster of one quantile"):
        train(config(source="parity", task={}), tmp_path / "run", progress=Quiet())
    with pytest.raises(RunError, match="penalty of force is 0"):
        train(config(rule_arguments={"penalty": 0.0}), tmp_path / "run", progress=Quiet())
