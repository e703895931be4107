"""Curricula: which heads learn, when the level rises, and that only heads that are asked for are learned."""

import pytest
import torch

from recurra.models import MODELS
from recurra.tasks import make
from recurra.train import Config, RunError, train
from recurra.train.progress import Quiet
from recurra.train.rules import RULES

TASK = {"task": "window_parity", "longest": 5}


def learner(**arguments):
    task, config = make(TASK), Config(source="window_parity")
    model = MODELS["language_model"](width=8, depth=1, pattern="elman", **task.model_arguments())
    return model, task, RULES["curriculum"](model, task, config, **arguments)


@pytest.mark.parametrize(
    ("keep", "level", "heads"),
    [(0, 1, {0}), (0, 3, {0, 1, 2}), (1, 3, {2}), (2, 3, {1, 2}), (2, 1, {0}), (9, 2, {0, 1})],
)
def test_only_the_heads_that_are_asked_for_learn(keep, level, heads):
    model, task, rule = learner(keep=keep)
    batch = task.batch("train", 0, 4, 16, 0)
    told = []
    rule.learn(batch, ((), torch.tensor([level]), torch.zeros(4)), told.append)
    touched = model.out.weight.grad.abs().sum(-1).unflatten(0, (-1, 2)).sum(-1) > 0
    assert {i for i, x in enumerate(touched.tolist()) if x} == heads
    losses, _ = task.heads(model(batch.inputs)[0], batch)
    torch.testing.assert_close(told[0], losses[sorted(heads)].sum())


class Sure(torch.nn.Module):
    """Says what it is told to, whatever it reads."""

    name = "sure"

    def __init__(self, task, wrong=()):
        super().__init__()
        self.scale, self.task, self.wrong = torch.nn.Parameter(torch.ones(())), task, wrong

    def forward(self, inputs, state=None, clock=None):
        said = self.task.solve(type(self.task.batch("train", 0, 1, 8, 0))(inputs, inputs)).unflatten(-1, (-1, 2))
        for head in self.wrong:
            said[..., head, :] = said[..., head, [1, 0]]
        return said.flatten(-2) * self.scale, ()


def levels(wrong, keep, steps):
    task = make(TASK)
    rule, kept = RULES["curriculum"](Sure(task, wrong), task, Config(source="window_parity"), keep=keep, bar=0.9), None
    for index in range(steps):
        kept = rule.learn(task.batch("train", index, 4, 16, 0), kept, lambda loss: None)
    return int(kept[1])


def test_the_level_rises_when_all_and_the_newest_are_held_and_never_beyond_the_last():
    # the accuracies' running means must first come up from nothing: 1 - 0.9^n > 0.9 at n = 22
    assert levels((), 0, 21) == 1 and levels((), 0, 22) == 2
    assert levels((), 0, 60) == 4
    assert levels((1,), 0, 60) == 2, "the newest is wrong"
    assert levels((0,), 1, 60) == 1


def test_what_has_no_heads_is_refused():
    task, config = make({"task": "parity"}), Config(source="parity")
    with pytest.raises(RunError, match="needs a task with heads"):
        RULES["curriculum"](None, task, config)
    with pytest.raises(RunError, match="keep"):
        RULES["curriculum"](None, make(TASK), config, keep=-1)


def test_it_trains_from_short_to_long(tmp_path):
    config = Config(
        source="window_parity", task={"longest": 3}, arguments={"width": 32, "depth": 1, "pattern": "gru"},
        rule="curriculum", rule_arguments={"bar": 0.9}, batch=16, length=16, steps=150, warmup=5, evaluate_every=150,
        evaluation_tokens=2048, checkpoint_every=150, threads=1,
    )  # fmt: skip
    result = train(config, tmp_path / "run", progress=Quiet())
    assert result.score > 0.9
