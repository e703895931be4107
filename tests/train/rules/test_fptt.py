"""FPTT: without its regulariser it is online descent; with it, the fixed point is that of all parts together."""

import pytest
import torch
from torch.testing import assert_close

from recurra.models import MODELS
from recurra.tasks import make
from recurra.train import Config, RunError, train
from recurra.train.progress import Quiet
from recurra.train.rules import RULES

RATE = 0.05


def setting(**changed):
    task = make({"task": "parity"})
    torch.manual_seed(0)
    model = MODELS["language_model"](width=8, depth=1, pattern="elman", vocabulary=2).double()
    settings = dict(source="parity", batch=3, length=24, tbptt=True)
    return task, model, Config(**{**settings, **changed})


def descend(model):
    """Plain descent, and the losses that it was told."""
    told = []

    def update(loss):
        told.append(float(loss.detach()))
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(RATE * p.grad)
                p.grad = None

    return update, told


def run(rule, model, task, batches, **arguments):
    task, _, config = setting()
    update, told = descend(model)
    kept, learner = None, RULES[rule](model, task, config, **arguments)
    for batch in batches:
        kept = learner.learn(batch, kept, update)
    return told, kept


def test_without_its_regulariser_it_is_online_descent():
    """Six parts of a carried batch are six batches of backpropagation with the state handed across."""
    task, model, _ = setting()
    _, same, _ = setting()
    whole = [task.batch("train", i, 3, 24, 0, carried=True) for i in range(3)]
    pieces = [type(b)(*(None if x is None else x[:, i : i + 4] for x in b)) for b in whole for i in range(0, 24, 4)]
    told, _ = run("fptt", model, task, whole, parts=6, alpha=0.0)
    expected, _ = run("bptt", same, task, pieces)
    assert told == expected
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_equations_as_the_paper_has_them():
    """The paper's form with lambda = alpha mu, one weight, the loss (w - a)^2 / 2 of each part, by hand."""
    task, model, config = setting()
    alpha, beta = 0.4, 0.5
    rule = RULES["fptt"](model, task, config, parts=2, alpha=alpha, beta=beta)
    w, mean, slope = [torch.nn.Parameter(torch.tensor([2.0]))], (torch.tensor([2.0]),), (torch.zeros(1),)
    value, average, multiplier = 2.0, 2.0, 0.0
    for a in (1.0, -1.0, 1.0, -1.0, 1.0):
        w[0].grad = w[0].detach() - a
        rule._regularise(w, mean, slope)
        with torch.no_grad():
            w[0].sub_(RATE * w[0].grad)
        mean, slope = rule._follow(w, mean, slope)
        value -= RATE * (value - a + 2 * alpha * (value - average) - multiplier)
        multiplier -= alpha * (value - average)
        average = (1 - beta) * average + beta * value - beta / alpha * multiplier
        assert_close(w[0].item(), value, rtol=1e-6, atol=1e-6)
        assert_close(mean[0].item(), average, rtol=1e-6, atol=1e-6)
        assert_close(alpha * slope[0].item(), multiplier, rtol=1e-6, atol=1e-6)


def test_a_sequence_that_ends_leaves_the_mean():
    task, model, config = setting(tbptt=False)
    update, told = descend(model)
    rule = RULES["fptt"](model, task, config, parts=5, alpha=0.5)
    seen = {}
    follow = rule._follow
    rule._follow = lambda w, m, s: seen.setdefault(len(seen), follow(w, m, s))
    assert rule.learn(task.batch("train", 0, 3, 24, 0), None, update) is None
    assert len(told) == 5
    for p, mean in zip(model.parameters(), seen[4][0], strict=True):
        assert torch.equal(p, mean)


@pytest.mark.parametrize("tbptt", [False, True])
def test_it_trains(tmp_path, tbptt):
    config = Config(
        source="window_parity", task={"longest": 3}, arguments={"width": 32, "depth": 1, "pattern": "gru"},
        rule="fptt", rule_arguments={"parts": 4}, batch=16, length=32, steps=60, warmup=5, tbptt=tbptt,
        evaluate_every=60, evaluation_tokens=2048, checkpoint_every=30, threads=1,
    )  # fmt: skip
    result = train(config, tmp_path / "run", progress=Quiet())
    assert result.score > 0.75


def test_what_it_cannot_teach_is_refused():
    task, model, config = setting()
    for wrong in ({"parts": 25}, {"alpha": -1.0}, {"beta": 0.0}):
        with pytest.raises(RunError):
            RULES["fptt"](model, task, config, **wrong)
    with pytest.raises(RunError, match="classifier"):
        RULES["fptt"](MODELS["classifier"](classes=2, width=8, depth=1, inputs=1), task, config)
