"""Target dynamics: the loss is what it says, recordings are followed, and a task without them is refused."""

import pytest
from torch.testing import assert_close

from recurra.models import MODELS
from recurra.state import leaves
from recurra.tasks import make
from recurra.train import Config, RunError, train
from recurra.train.forward import forward
from recurra.train.progress import Quiet
from recurra.train.rules import RULES
from recurra.train.rules.target_dynamics import rates_of

SETTINGS = dict(
    source="recordings", task={"units": 20, "recorded": 4}, arguments={"width": 24, "depth": 1, "pattern": "ctrnn"},
    batch=8, length=24, steps=60, warmup=5, evaluate_every=60, evaluation_tokens=512, checkpoint_every=60, threads=1,
)  # fmt: skip


def setting(pattern="ctrnn", width=24):
    task = make({"task": "recordings", **SETTINGS["task"]})
    return task, MODELS["forecaster"](width=width, depth=1, pattern=pattern, **task.model_arguments())


def test_the_first_units_are_compared_and_nothing_else():
    task, model = setting()
    config = Config(**SETTINGS)
    rule, told = RULES["target_dynamics"](model, task, config, strength=3.0), []
    batch = task.batch("train", 0, 8, 24, 0)
    assert rule.learn(batch, None, told.append) is None
    rates, outputs, state = rates_of(model, batch, None, config)
    assert_close(outputs, forward(model, batch, None, config)[0])
    missed = (rates[..., :4] - task.rates(batch.inputs)[..., :4].float()).square().mean()
    assert_close(told[0], task.loss(outputs, batch) + 3.0 * missed)
    # CTRNN: its reads are its rates
    assert_close(rates[:, -1], next(x for x in leaves(state) if x.shape == (8, 24)))


def test_without_strength_it_is_backpropagation():
    task, model = setting()
    gradients = []
    for rule, arguments in (("target_dynamics", {"strength": 0.0}), ("bptt", {})):
        learner = RULES[rule](model, task, Config(**SETTINGS), **arguments)
        learner.learn(task.batch("train", 0, 8, 24, 0), None, lambda loss: None)
        gradients.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


def test_recordings_are_followed(tmp_path):
    missed = {}
    for strength in (0.0, 10.0):
        config = Config(**SETTINGS, rule="target_dynamics", rule_arguments={"strength": strength})
        train(config, tmp_path / str(strength), progress=Quiet())
        model = MODELS["forecaster"].from_pretrained(tmp_path / str(strength))
        task = make({"task": "recordings", **SETTINGS["task"]})
        batch = task.batch("test", 0, 32, 24, 0)
        rates, _, _ = rates_of(model, batch, None, config)
        missed[strength] = float((rates[..., :4] - task.recordings(batch)).square().mean().detach())
    assert missed[10.0] < 0.2 * missed[0.0]


def test_what_it_cannot_teach_is_refused():
    task, model = setting()
    with pytest.raises(RunError, match="this task has none"):
        RULES["target_dynamics"](model, make({"task": "adding"}), Config(**SETTINGS))
    with pytest.raises(RunError, match="strength"):
        RULES["target_dynamics"](model, task, Config(**SETTINGS), strength=-1.0)
    task, model = setting("gru", 3)
    with pytest.raises(RunError, match="4 units are recorded, and the network has 3"):
        RULES["target_dynamics"](model, task, Config(**SETTINGS)).learn(task.batch("train", 0, 2, 24, 0), None, print)
