"""From the words that a user gives on a command line to settings: KEY=VALUE, 600k, and only what was said."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from recurra.models.backbone import parse
from recurra.models.presets import PRESETS as SIZES
from recurra.tasks import PIPE
from recurra.train.compare import CompareConfig
from recurra.train.config import Config, nearest
from recurra.train.contender import NONE
from recurra.train.errors import RunError
from recurra.train.presets import PRESETS
from recurra.train.stream import FOR_EVER

DEFAULT = "mamba2"  # the mixer, where none is named

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def number(text: str) -> int:
    """A whole number, in thousands or millions where it ends so: "600k", "1.5M".

    Raises:
        RunError: it is none.
    """
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kmg]?)", text.strip().lower())
    if match is None:
        raise RunError(f"{text!r} is not a number: write 600000, 600k or 1.5M")
    return round(float(match[1]) * _UNITS[match[2]])


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE words as a dictionary; a value is JSON (4, 0.5, true, [1, 2]) where it can be, else text.

    Raises:
        RunError: a word without "=".
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise RunError(f"{text!r} is not KEY=VALUE, such as heads=8")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found


def mixer_keywords(patterns: Sequence[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keywords of mixers by name: "heads" where the patterns have one mixer, "gla.heads" where they have several.

    Raises:
        RunError: it is not clear whose keyword it is, or no pattern has that mixer.
    """
    return owned(list(dict.fromkeys(name for pattern in patterns for name in parse(pattern))), given)


def owned(names: Sequence[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keywords by whose they are: "heads" where there is one name, "gla.heads" where there are several.

    Raises:
        RunError: it is not clear whose keyword it is, or it is nobody's.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        owner, dot, keyword = key.rpartition(".")
        if not dot and len(names) != 1:
            raise RunError(f"{key!r} could be a keyword of {', '.join(names)}: write {names[0]}.{key}")
        if dot and owner not in names:
            raise RunError(f"{key!r} is a keyword of {owner!r}, which is none of {', '.join(names)}")
        found.setdefault(owner or names[0], {})[keyword] = value
    return found


def overlay(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`base` with what was given put over it, key by key also inside; None is what was not given."""
    merged = dict(base)
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = overlay(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def run_settings(
    options: dict[str, Any], keywords: Iterable[str], before: Config | None, preset: str | None = None
) -> Config:
    """The settings of a run: what was given over those of the run that goes on (`before`), or over the defaults.

    A `preset` is a model of a published size (`recurra.models.presets`) beneath what was given; how many tokens there
    are is the source's to say.

    Raises:
        RunError: no source, or something given that does not exist.
    """
    base = {**Config(source="").to_json(), "source": None} if before is None else before.to_json()
    size = {key: value for key, value in _named(preset, SIZES).items() if key != "vocabulary"}
    merged = overlay(overlay(overlay({"arguments": {"pattern": DEFAULT}}, base), {"arguments": size}), options)
    own = mixer_keywords([merged["arguments"]["pattern"]], pairs(keywords))
    return Config.from_json(_with_keywords(merged, own))


def training(
    steps: int | None,
    batch: int | None,
    length: int | None,
    evaluation_length: int | None,
    lr: float | None,
    tbptt: bool,
    bf16: bool,
) -> dict[str, Any]:
    """What was said about training, under the settings' names; a flag that is not set says nothing."""
    precision = "bfloat16" if bf16 else None
    named = {"steps": steps, "batch": batch, "length": length, "evaluation_length": evaluation_length}
    return {**named, "learning_rate": lr, "tbptt": tbptt or None, "precision": precision}


def endless(source: str | None, steps: int | None, batch: int | None) -> dict[str, Any]:
    """What a stream without end asks for: the state carried, no last step unless one is given, one row of a pipe."""
    rows = 1 if source == PIPE and batch is None else batch
    return {"endless": True, "tbptt": True, "steps": FOR_EVER if steps is None else steps, "batch": rows}


def comparison_settings(
    options: dict[str, Any], keywords: dict[str, list[str]], preset: str | None, before: CompareConfig | None
) -> CompareConfig:
    """The settings of a comparison: what was given over a preset over those that go on (`before`) or the defaults.

    `keywords` are of mixers, rules and masks: KEY=VALUE words under each.

    Raises:
        RunError: no source or mixers, or something given that does not exist.
    """
    none = CompareConfig(source="", mixers=("",)).to_json() | {"source": None, "mixers": None}
    base = none if before is None else before.to_json()
    merged = overlay(overlay(base, _named(preset, PRESETS)), options)
    if not merged.get("mixers"):
        raise RunError("no mixers were named: give --mixers lstm,mamba2 or a --preset")
    for what, arguments in (("rules", "rule_arguments"), ("masks", "mask_arguments")):
        named = [name for name in merged[what] if name not in ("bptt", NONE)] or merged[what]
        merged[arguments] = overlay(merged[arguments], owned(named, pairs(keywords.get(what, []))))
    own = mixer_keywords(merged["mixers"], pairs(keywords.get("mixers", [])))
    return CompareConfig.from_json(_with_keywords(merged, own))


def mixers(text: str | None) -> list[str] | None:
    """The patterns in "lstm,mamba2*3+attention": commas stand between models, a plus between the parts of one."""
    return None if text is None else [name.strip().replace("+", ",") for name in text.split(",")]


def names(text: str | None) -> list[str] | None:
    """The words between commas."""
    return None if text is None else [name.strip() for name in text.split(",")]


def _named(preset: str | None, presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings that have a name; none where none is given."""
    if preset is None:
        return {}
    if preset not in presets:
        raise RunError(f"there is no preset {preset!r}{nearest(preset, presets)}; there are {', '.join(presets)}")
    return presets[preset]


def _with_keywords(settings: dict[str, Any], own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if settings.get("source") is None:
        raise RunError(
            "the source is missing: give a text file or folder, stdlib, a CSV or Parquet series, a task, or -"
        )
    return overlay(settings, {"arguments": {"mixers": own}} if own else {})
