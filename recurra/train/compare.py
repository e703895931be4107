"""Architectures side by side on equal terms: the same number of parameters, the same batches, the same seeds.

Every pair of a contender and a seed is an ordinary run in a folder of its own, trained in a process of its own with one
thread. So a comparison can be stopped and resumed as its runs can, and each of its runs can be used as any other.
"""

import dataclasses
import json
import os
import pathlib
import statistics
from typing import Any

from recurra.files import alone, write_json
from recurra.models import load, solve_width
from recurra.models.backbone import parse
from recurra.tasks import PIPE, Task, open_source
from recurra.train import board as boards, pool, result, stopping
from recurra.train.board import Board, Standing
from recurra.train.config import Config, at_least, differences, from_json, to_json
from recurra.train.contender import NONE, Contender, contenders
from recurra.train.errors import Incomplete, RunError, Stopped
from recurra.train.measure import step_microseconds
from recurra.train.metrics import Follow
from recurra.train.result import Result
from recurra.train.run import cores, describe


def _two() -> dict[str, Any]:
    return {"depth": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The settings of a comparison.

    Args:
        source: what to learn from, as in `Config`.
        mixers: what is compared: names of mixers, or patterns of them.
        rules: ways to learn, each with each mixer: rows of `recurra.train.rules.RULES`.
        masks: sparse weights, each with each mixer and rule: rows of `recurra.train.masks.MASKS`, or "none".
        parameters: of each model, within 3 %; the widths follow.
        seeds: runs of each mixer, with seeds 0, 1, ...
        task: further keywords for the task.
        arguments: keywords of all models (`depth`, `dropout`, ...; `mixers`: keywords of mixers by name).
        training: further settings of all runs, as in `Config` (`steps`, `batch`, `length`, `learning_rate`, ...).
        rule_arguments: keywords of rules by name.
        mask_arguments: keywords of masks by name.
    """

    source: str
    mixers: tuple[str, ...]
    rules: tuple[str, ...] = ("bptt",)
    masks: tuple[str, ...] = (NONE,)
    parameters: int = 600_000
    seeds: int = 1
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    arguments: dict[str, Any] = dataclasses.field(default_factory=_two)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    rule_arguments: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    mask_arguments: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixers", tuple(name.replace(" ", "") for name in self.mixers))
        at_least(self, 1, "parameters", "seeds")
        if self.source == PIPE:
            raise RunError("a pipe can be read by one run only: give a file to compare on")
        for what, names in (("mixers", self.mixers), ("rules", self.rules), ("masks", self.masks)):
            if not names or len(set(names)) < len(names):
                raise RunError(f"the {what} are {', '.join(names) or 'none'}: name at least one, and each once")
        own = {"source", "task", "arguments", "seed", "threads", "rule", "rule_arguments", "mask", "mask_arguments"}
        taken = own & set(self.training)
        if taken:
            raise RunError(f"training sets {', '.join(sorted(taken))}: a comparison sets it for all runs itself")

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` writes and `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> "CompareConfig":
        """The settings in a dictionary; a key that is no setting raises RunError."""
        return from_json(cls, settings)


def compare(
    config: CompareConfig,
    folder: str | os.PathLike[str],
    resume: bool = False,
    progress: Board | None = None,
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Train every contender with every seed, and return the table's rows, the best first; table.json holds them too.

    Args:
        config: all settings.
        folder: a new one, or with `resume` one that holds a comparison of the same settings.
        resume: go on: runs that ended are not trained again, the others continue from their checkpoints.
        progress: who is shown the runs; None: a live table, or plain lines where stderr is no terminal.
        workers: processes at a time; 0: as many as the CPU has cores.

    Raises:
        RunError: the user can put it right; nothing was started, or what was there is intact.
        Incomplete: some runs failed; the others are in its `rows` and in table.json.
        Stopped: Ctrl-C; all is saved.
        ValueError: another process compares in the folder.
    """
    folder = pathlib.Path(folder)
    if workers < 0:
        raise RunError(f"workers is {workers}: it must be at least 0")
    _check(folder, config, resume)
    runs = plan(config)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder), stopping.listening() as stop, boards.for_stderr() if progress is None else progress as board:
        # another process may have begun there meanwhile
        _check(folder, config, resume)
        write_json(folder / "compare.json", config.to_json())
        failed = _train(runs, folder, workers or cores(), stop, board)
        done = {name: ended for name in runs if (ended := result.read(folder / name)) is not None}
        if stop.asked:
            raise Stopped(f"stopped; {len(done)} of {len(runs)} runs in {folder} are done; resume to go on")
        rows = _table(config, folder, done)
        write_json(folder / "table.json", rows)
    if failed:
        raise Incomplete(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}", rows)
    return rows


def read_comparison(folder: str | os.PathLike[str]) -> CompareConfig:
    """The settings of the comparison in a folder.

    Raises:
        RunError: it holds none.
    """
    path = pathlib.Path(folder) / "compare.json"
    try:
        return CompareConfig.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RunError(f"{folder} holds no comparison: it has no compare.json") from error
    except (json.JSONDecodeError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def plan(config: CompareConfig) -> dict[str, Config]:
    """The settings of every run, by name: seeds first, so that all mixers are seen early.

    Raises:
        RunError: a mixer, a keyword or a setting that does not exist, or a size that cannot be reached.
    """
    base = {"source": config.source, "task": config.task, **config.training, "threads": 1}
    task = open_source(config.source, **config.task)
    solved = {pattern: _arguments(config, pattern, base, task) for pattern in config.mixers}
    return {
        f"{one.folder}-{seed}": Config.from_json(
            {**base, **_learning(config, one), "arguments": solved[one.pattern], "seed": seed}
        )
        for seed in range(config.seeds)
        for one in contenders(config.mixers, config.rules, config.masks)
    }


def _learning(config: CompareConfig, one: Contender) -> dict[str, Any]:
    """How a contender learns and which weights it has, as `Config` says it."""
    mask = None if one.mask == NONE else one.mask
    said = {"rule": one.rule, "rule_arguments": config.rule_arguments.get(one.rule, {})}
    return {**said, "mask": mask, "mask_arguments": config.mask_arguments.get(one.mask, {})}


def _arguments(config: CompareConfig, pattern: str, base: dict[str, Any], task: Task) -> dict[str, Any]:
    """The model's keywords at which a pattern has the number of parameters that was asked for."""
    try:
        names = parse(pattern)
        mixers = {name: kw for name, kw in config.arguments.get("mixers", {}).items() if name in names}
        own = {**config.arguments, "pattern": pattern, "mixers": mixers}
        name, arguments = describe(Config.from_json({**base, "arguments": own}), task)
        solved = solve_width(name, arguments, config.parameters)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    return {key: value for key, value in solved.items() if key not in task.model_arguments()}


def _check(folder: pathlib.Path, config: CompareConfig, resume: bool) -> None:
    """Refuse a folder that holds something else than what is asked for."""
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} is not empty: resume the comparison in it, or give another folder")
        return
    changed = differences(read_comparison(folder).to_json(), config.to_json())
    if changed:
        raise RunError(f"the comparison in {folder} has other settings: {'; '.join(changed)}")


def _train(runs: dict[str, Config], folder: pathlib.Path, workers: int, stop: stopping.Stop, board: Board) -> list[str]:
    """Train the runs that have not ended; returns what those that failed complain about."""
    standings = {name: Standing(name, config.steps) for name, config in runs.items()}
    follows = {name: Follow(folder / name) for name in runs}

    def look(running: set[str], ended: dict[str, int]) -> None:
        for name, standing in standings.items():
            standing.read(follows[name].new())
            standing.status = _status(name, running, ended, folder)
        board.show(list(standings.values()))

    look(set(), {})
    jobs = [_job(name, config, folder) for name, config in runs.items() if result.read(folder / name) is None]
    codes = pool.run(jobs, workers, stop, look)
    failed = [] if stop.asked else [pool.complaint(job, codes[job.name]) for job in jobs if codes[job.name]]
    for sentence in failed:
        board.say(sentence)
    return failed


def _status(name: str, running: set[str], ended: dict[str, int], folder: pathlib.Path) -> str:
    if name in running:
        return "training"
    if name in ended:
        return {0: "done", 130: "stopped"}.get(ended[name], "failed")
    return "done" if (folder / name / result.NAME).exists() else "waiting"


def _job(name: str, config: Config, folder: pathlib.Path) -> pool.Job:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    write_json(work / f"{name}.json", config.to_json())
    return pool.Job(
        name, "recurra.train.worker", [str(work / f"{name}.json"), str(folder / name)], work / f"{name}.log"
    )


def _table(config: CompareConfig, folder: pathlib.Path, done: dict[str, Result]) -> list[dict[str, Any]]:
    """A row for each contender that has a run which ended, the best first."""
    rows = []
    for one in contenders(config.mixers, config.rules, config.masks):
        names = [f"{one.folder}-{seed}" for seed in range(config.seeds)]
        names = [name for name in names if name in done]
        if names:
            rows.append(_row(one.name, {name: done[name] for name in names}, folder))
    return sorted(rows, key=lambda row: row["score_mean"] if row["lower_is_better"] else -row["score_mean"])


def _row(called: str, ended: dict[str, Result], folder: pathlib.Path) -> dict[str, Any]:
    """A contender's row: means over its seeds, and the sample of the best. The spread is the standard deviation."""
    scores = [one.score for one in ended.values()]
    name, best = (min if next(iter(ended.values())).lower_is_better else max)(
        ended.items(), key=lambda item: item[1].score
    )
    return {
        "mixer": called,
        "run": name,
        "parameters": best.parameters,
        "score_mean": statistics.fmean(scores),
        "score_spread": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "scores": scores,
        "measure": best.measure,
        "lower_is_better": best.lower_is_better,
        "chance": best.chance,
        "state_bytes": best.state_bytes,
        "grows": best.grows,
        "tokens_per_second": statistics.fmean(one.tokens_per_second for one in ended.values()),
        "step_microseconds": step_microseconds(load(folder / name)),
        "seconds": statistics.fmean(one.seconds for one in ended.values()),
        "prompt": best.prompt,
        "sample": best.sample,
    }
