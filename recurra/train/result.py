"""What a finished run has to say for itself, in one file: result.json."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from recurra import state as states
from recurra.files import write_json
from recurra.models import count
from recurra.tasks import Task
from recurra.tasks.language import Language
from recurra.train.config import Config
from recurra.train.run import Run
from recurra.train.stream import Stream

NAME = "result.json"
PROMPT, SAMPLE, TEMPERATURE = 128, 400, 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The end of a run.

    Args:
        score: the task's `measure` on held-out data; `chance` is what guessing gets (None: unknown).
        parameters: numbers trained.
        density: the share of the masked matrices' weights that there are; None: nothing is masked.
        state_bytes: memory of one sequence before its first step; `grows`: it becomes more with every step.
        steps, tokens, seconds: done, seen and spent in updates alone.
        prompt, sample: held-out text (of a pipe what came last) and how a language model goes on from it; None for
            other tasks.
    """

    score: float
    measure: str
    lower_is_better: bool
    chance: float | None
    parameters: int
    state_bytes: int
    grows: bool
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    prompt: str | None
    sample: str | None
    density: float | None = None

    def write(self, folder: pathlib.Path) -> None:
        """Write result.json."""
        write_json(folder / NAME, dataclasses.asdict(self))


def read(folder: pathlib.Path) -> Result | None:
    """The result in a run's folder; None where the run has not ended."""
    path = folder / NAME
    return Result(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def conclude(run: Run, task: Task, config: Config, score: float) -> Result:
    """The result of a run that is done."""
    prompt, sample = write_on(run.model, task, config)
    chance = float(task.chance)
    mask = None if run.masking is None else run.masking.mask
    return Result(
        score=score, measure=task.measure, lower_is_better=task.lower_is_better,
        chance=chance if math.isfinite(chance) else None,
        parameters=count(run.model) - (0 if mask is None else mask.absent),
        state_bytes=states.nbytes(run.model.initial_state(1)), grows=run.model.grows, steps=run.step,
        tokens=run.tokens, seconds=run.seconds, tokens_per_second=run.tokens / max(run.seconds, 1e-9),
        prompt=prompt, sample=sample, density=None if mask is None else mask.density,
    )  # fmt: skip


def write_on(model: Any, task: Task, config: Config) -> tuple[str | None, str | None]:
    """A piece of held-out text and the model's continuation of it, the same draw every time."""
    language: Any = task.task if isinstance(task, Stream) else task
    if not isinstance(language, Language) or model.name != "language_model":
        return None, None
    tokens = language.prompt(min(PROMPT, config.length)).to(config.device)
    training = model.training
    model.eval()
    drawn = model.generate(tokens, max_new_tokens=SAMPLE, do_sample=True, temperature=TEMPERATURE, seed=0)
    model.train(training)
    parts = drawn[0].tensor_split([tokens.shape[1]])
    texts = (language.decode(part.tolist()).decode("utf-8", "replace") for part in parts)
    return next(texts), next(texts)
