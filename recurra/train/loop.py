"""Training: one loop for every model, every task and every architecture.

A batch is a function of its number, and everything else that a step reads is in `Run`. So a run that is stopped at
any step, killed or interrupted, goes on from its last checkpoint to the same numbers, bit for bit.
"""

import contextlib
import io
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import safetensors

from recurra.files import alone, is_full, write_json
from recurra.models.folder import describe, read_config, save_pretrained
from recurra.shapes import Tensor
from recurra.tasks import PIPE, Dry, Piped, SourceError, Task, open_source
from recurra.train import checkpoints, metrics, result, stopping
from recurra.train.config import Config, differences
from recurra.train.errors import RunError, Stopped
from recurra.train.evaluate import evaluate
from recurra.train.forward import moved, size
from recurra.train.optimisers import clip, set_learning_rate
from recurra.train.progress import Progress, for_stderr
from recurra.train.result import Result
from recurra.train.run import Run, begin, exactly
from recurra.train.schedules import warmup_cosine
from recurra.train.stream import FOR_EVER, Stream, health


def train(
    config: Config, folder: str | os.PathLike[str], resume: bool = False, progress: Progress | None = None
) -> Result:
    """Train a model, and leave a run's folder: config.json, model.safetensors, metrics.jsonl, result.json, checkpoints.

    Args:
        config: all settings.
        folder: a new one, or with `resume` one that holds a run of the same settings.
        resume: go on from the last checkpoint; a run that has ended is left alone and its result returned.
        progress: who is shown each step; None: a bar, or plain lines where stderr is no terminal.

    Raises:
        RunError: the user can put it right (the folder, the settings, the disk); what was there is intact.
        SourceError: so can they the source.
        Stopped: Ctrl-C; all is saved.
        ValueError: another process trains in the folder.
    """
    folder = pathlib.Path(folder)
    _check(folder, config, resume)
    ended = result.read(folder) if resume else None
    # a pipe may always hold more
    if ended is not None and config.source != PIPE:
        return ended
    task = _open(config, folder if resume else None)
    with exactly(config), stopping.listening() as stop, for_stderr() if progress is None else progress as shown:
        try:
            run = begin(config, task)
            if (pipe := _pipe(task)) is not None:
                pipe.asked = lambda: stop.asked
            with _made(folder), alone(folder):
                # another process may have begun there meanwhile
                _check(folder, config, resume)
                with contextlib.nullcontext() if resume else _written(folder, run):
                    _start(folder, run, task, config, resume, shown)
                    with metrics.open_to_append(folder) as file:
                        score = _loop(run, task, config, folder, file, stop, shown)
                save_pretrained(run.model, folder, **_sections(task, config))
                ended = result.conclude(run, task, config, score)
                ended.write(folder)
            return ended
        except (OSError, safetensors.SafetensorError) as error:
            if not is_full(error):
                raise
            raise RunError(f"the disk is full: {_kept(folder)}; make room and resume") from error


def read_settings(folder: str | os.PathLike[str]) -> Config:
    """The settings of the run in a folder.

    Raises:
        RunError: it holds no run, or one of another version.
    """
    try:
        found = read_config(folder)
    except ValueError as error:
        raise RunError(str(error)) from error
    if "training" not in found:
        raise RunError(f"{folder} holds a model but no run: there is nothing to resume")
    return Config.from_json(found["training"])


def _open(config: Config, before: pathlib.Path | None) -> Task:
    """The task of a run, new or with a folder from `before`.

    Raises:
        SourceError: it cannot be used; in a pipe too little comes to learn from at all.
    """
    keywords = dict(config.task)
    if config.source == PIPE and before is not None:
        # what it held once it holds again, however it begins now
        keywords["format"] = {"series": "csv"}.get(read_config(before)["task"]["task"], "text")
    task = open_source(config.source, **keywords)
    if isinstance(task, Piped) and before is None and not task.fill(config.length):
        raise SourceError(
            f"the pipe is over after {task.held} steps: the first can be learned from after {task.ahead} more"
        )
    return Stream(task) if config.endless else task


def _check(folder: pathlib.Path, config: Config, resume: bool) -> None:
    """Refuse a folder that holds something else than what is asked for."""
    if not resume:
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file: give a folder")
        if folder.exists() and any(not x.name.startswith(".") for x in folder.iterdir()):
            raise RunError(f"{folder} is not empty: resume the run in it, or give another folder")
        return
    changed = differences(read_settings(folder).to_json(), config.to_json())
    if changed:
        raise RunError(f"the run in {folder} has other settings: {'; '.join(changed)}; give those, or another folder")


@contextlib.contextmanager
def _made(folder: pathlib.Path) -> Iterator[None]:
    """Inside there is a folder; one that was made for it and in which nothing is left by an error goes with it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except Exception:
        # the first that holds something stays, and so do those around it
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()
        raise


@contextlib.contextmanager
def _written(folder: pathlib.Path, run: Run) -> Iterator[None]:
    """Inside, an error before the first update takes back what a new run wrote: there is nothing to go on from.

    A full disk is no such error: what is there already is enough to begin again.
    """
    try:
        yield
    except Exception as error:
        if run.step == 0 and not is_full(error):
            for name in ("config.json", metrics.NAME):
                (folder / name).unlink(missing_ok=True)
        raise


def _start(folder: pathlib.Path, run: Run, task: Task, config: Config, resume: bool, shown: Progress) -> None:
    """Write what a run is, or set it to where it stopped."""
    if not resume:
        write_json(folder / "config.json", describe(run.model, **_sections(task, config)))
    elif checkpoints.found(folder):
        path = checkpoints.resume(folder, run, shown.say)
        shown.say(f"resumed from {path}")
    else:
        shown.say(f"{folder} has no checkpoint yet: starting from the first step")
    if (pipe := _pipe(task)) is not None:
        if run.source is not None:
            pipe.restore(run.source)
        shown.say(pipe.said)
        # it is not the last word any more
        (folder / result.NAME).unlink(missing_ok=True)
    metrics.drop_after(folder, run.step)
    shown.begin(run.step, config.steps if config.steps < FOR_EVER else None, nats=task.head != "forecaster")


def _pipe(task: Task) -> Piped | None:
    """The pipe that a run reads, if it reads one."""
    return task.pipe if isinstance(task, Stream) else None


def _sections(task: Task, config: Config) -> dict[str, Any]:
    """What config.json says besides the model."""
    return {"training": config.to_json(), "task": task.config}


def _loop(
    run: Run,
    task: Task,
    config: Config,
    folder: pathlib.Path,
    file: io.TextIOBase,
    stop: stopping.Stop,
    shown: Progress,
) -> float:
    """All steps that remain, and the last score."""
    score = math.nan
    run.model.train()
    steps = min(config.steps, task.batches(config.batch, config.length)) if isinstance(task, Stream) else config.steps
    while run.step < steps:
        try:
            line = _step(run, task, config, folder)
        except (Dry, SourceError) as end:
            if not isinstance(task, Stream) or task.pipe is None:
                raise
            score = _score(run, task, config, file, shown) if task.count else score
            _dry(run, task, config, folder, end, stop.asked)
            break
        # a stream's file must not grow with every step
        if not config.endless or run.step % config.evaluate_every == 0:
            _tell(file, shown, line)
        if run.step == 1:
            metrics.write(file, _about(run, rule=config.rule, memory_bytes=run.rule.memory_bytes, **_masked(run)))
        last = run.step == steps
        if last or run.step % config.evaluate_every == 0:
            score = _score(run, task, config, file, shown)
        # read once: a signal may come while the checkpoint is written, and then the next step answers it
        asked = stop.asked
        if last or asked or run.step % config.checkpoint_every == 0:
            _save(run, task, config, folder)
        if asked and not last:
            raise _stopped(run, config, folder)
    # a run that was killed between its last step and its result comes here without a step
    if config.endless and math.isnan(score):
        return [line["held_out"] for line in metrics.read(folder) if "held_out" in line][-1]
    return score if math.isfinite(score) else evaluate(run.model, task, config)


def _dry(run: Run, task: Task, config: Config, folder: pathlib.Path, end: Exception, asked: bool) -> None:
    """A pipe gives nothing more: keep what was learned, and say why if that is not its end.

    Raises:
        Stopped: somebody asked to stop while nothing came.
        SourceError: what came is malformed.
    """
    if run.step:
        _save(run, task, config, folder)
    if isinstance(end, SourceError):
        raise SourceError(f"{end}; {_kept(folder)}") from end
    if asked:
        raise _stopped(run, config, folder)


def _score(run: Run, task: Task, config: Config, file: io.TextIOBase, shown: Progress) -> float:
    score = task.take() if isinstance(task, Stream) else evaluate(run.model, task, config)
    more = health(run.state) if config.endless else {}
    _tell(file, shown, _about(run, held_out=score, measure=task.measure, **more))
    return score


def _save(run: Run, task: Task, config: Config, folder: pathlib.Path) -> None:
    if (pipe := _pipe(task)) is not None:
        run.source = pipe.kept()
    checkpoints.save(folder, run, config)
    save_pretrained(run.model, folder, **_sections(task, config))


def _stopped(run: Run, config: Config, folder: pathlib.Path) -> Stopped:
    steps = f" of {config.steps}" if config.steps < FOR_EVER else ""
    return Stopped(f"stopped after step {run.step}{steps}; {_kept(folder)}; resume to go on")


def _step(run: Run, task: Task, config: Config, folder: pathlib.Path) -> dict[str, Any]:
    """One update of the weights, and the line about it."""
    started = time.perf_counter()
    batch = task.batch("train", run.step, config.batch, config.length, config.seed, config.tbptt)
    batch = moved(batch, config.device)
    steps = FOR_EVER if config.endless else config.steps
    rate = warmup_cosine(run.step, steps, config.warmup, config.learning_rate, config.final_learning_rate)
    set_learning_rate(run.optimiser, rate)
    told: dict[str, float] = {}
    masking, number = run.masking, run.step + 1

    def update(loss: Tensor) -> None:
        if masking is not None:
            masking.before(number)
        value, norm = float(loss.detach()), clip(list(run.model.parameters()), config.clip)
        for name, x in (("loss", value), ("gradient", norm)):
            if not math.isfinite(x):
                raise RunError(f"the {name} is {x} at step {number}: {_kept(folder)}; lower the learning rate")
        run.optimiser.step()
        if masking is not None and (new := masking.after(number, run.optimiser)):
            told.update(rewired=new)
        run.optimiser.zero_grad(set_to_none=True)
        told.update(loss=value, grad_norm=norm)

    run.optimiser.zero_grad(set_to_none=True)
    with contextlib.nullcontext() if masking is None else masking.watching(number):
        run.state = run.rule.learn(batch, run.state, update)
    seconds, tokens = time.perf_counter() - started, size(batch)
    run.step, run.tokens, run.seconds = run.step + 1, run.tokens + tokens, run.seconds + seconds
    return _about(run, **told, lr=rate, tokens_per_second=tokens / seconds)


def _masked(run: Run) -> dict[str, float]:
    """The share of possible connections that there are, where some are not."""
    return {} if run.masking is None else {"density": run.masking.mask.density}


def _about(run: Run, **more: Any) -> dict[str, Any]:
    return {"step": run.step, "tokens": run.tokens, "seconds": run.seconds, **more}


def _tell(file: io.TextIOBase, shown: Progress, line: dict[str, Any]) -> None:
    metrics.write(file, line)
    shown.line(line)


def _kept(folder: pathlib.Path) -> str:
    """Where the run stands on the disk."""
    kept = checkpoints.found(folder)
    return f"the last checkpoint is {kept[0]}" if kept else f"{folder} has no checkpoint yet"
