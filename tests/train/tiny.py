"""A model and a task as small as can be, so that these tests are about training and about nothing else."""

import pathlib
import shutil
import sys
from typing import Any

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models import MODELS
from recurra.tasks import TASKS, Batch, Task
from recurra.train import Config, RunError, Stopped, checkpoints, metrics, train

SYMBOLS = 7


class TinyModel(nn.Module):
    """A GRU cell stepped by hand, with dropout: its state is carried, reset and held as the law asks."""

    name = "tiny"
    grows = False

    def __init__(self, *, vocabulary: int, width: int, depth: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = dict(vocabulary=vocabulary, width=width, depth=depth, dropout=dropout)
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell, self.drop = nn.GRUCell(width, width), nn.Dropout(dropout)
        self.decay, self.out = nn.Parameter(torch.ones(width, 2)), nn.Linear(width, vocabulary)

    def initial_state(self, batch: int) -> Any:
        return (torch.zeros(batch, self.out.in_features),)

    def undecayed_parameters(self) -> set[str]:
        return {"decay", "out.bias", "cell.bias_ih", "cell.bias_hh"}

    def forward(self, inputs, state=None, clock: Clock | None = None):
        (h,) = self.initial_state(len(inputs)) if state is None else state
        outputs = []
        for t, x in enumerate(self.drop(self.embedding(inputs)).unbind(1)):
            if clock is not None and clock.reset is not None:
                h = h * ~clock.reset[:, t, None]
            h = self.cell(x, h) * self.decay[:, 0]
            outputs.append(h)
        return self.out(self.drop(torch.stack(outputs, 1))), (h,)

    def generate(self, input_ids, *, max_new_tokens, **_):
        return torch.cat([input_ids, input_ids[:, :1].repeat(1, max_new_tokens)], 1)


class TinyTask(Task):
    """Predict the next of symbols that repeat with a period of 5, with new streams now and then."""

    head, measure, lower_is_better, chance = "tiny", "bits per symbol", True, 2.807

    def __init__(self, noise: float = 0.1) -> None:
        self.noise, self.config = noise, {"task": "tiny", "noise": noise}

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": SYMBOLS}

    def batch(self, split, index, size, length, seed, carried=False):
        generator = torch.Generator().manual_seed(1000 * seed + index + (10**6 if split == "test" else 0))
        steps = torch.arange(length + 1) + (index * length if carried else 0)
        symbols = (steps + torch.arange(size)[:, None]) % 5
        wrong = torch.rand(symbols.shape, generator=generator) < self.noise
        symbols = torch.where(wrong, torch.randint(SYMBOLS, symbols.shape, generator=generator), symbols)
        reset = torch.rand(size, length, generator=generator) < 0.05 if carried else None
        return Batch(symbols[:, :-1], symbols[:, 1:], None, reset)

    def loss(self, outputs, batch):
        return nn.functional.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten())

    def score(self, outputs, batch):
        return float(
            self.loss(outputs, batch).detach()
        ) / 0.6931471805599453 * batch.targets.numel(), batch.targets.numel()

    def solve(self, batch):
        raise NotImplementedError


def register() -> None:
    MODELS["tiny"], TASKS["tiny"] = TinyModel, TinyTask


def config(**changed: Any) -> Config:
    """A run of 30 short steps."""
    settings: dict[str, Any] = dict(
        source="tiny", arguments={"width": 12}, batch=3, length=8, steps=30, warmup=3, learning_rate=1e-2,
        evaluate_every=7, evaluation_tokens=48, checkpoint_every=4, threads=1,
    )  # fmt: skip
    return Config(**{**settings, **changed})


def killed(ended: pathlib.Path, folder: pathlib.Path, step: int) -> None:
    """A run that ended, in another folder as it would lie there had it been killed after the checkpoint of a step."""
    shutil.copytree(ended, folder)
    for path in checkpoints.found(folder):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    for name in ("result.json", "model.safetensors"):
        (folder / name).unlink()
    metrics.drop_after(folder, step)


if __name__ == "__main__":
    # python -m train.tiny FOLDER STEPS: the run that tests kill
    register()
    folder, steps = sys.argv[1:]
    try:
        train(config(steps=int(steps), tbptt=True), folder)
    except Stopped as stopped:
        print(stopped)
        sys.exit(130)
    except RunError as error:
        print(error)
        sys.exit(2)
