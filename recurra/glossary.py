"""Every name that the command knows and what it means, as the thing's own docstring says it: nothing is written twice.

The mixers have a table of their own, `recurra.catalogue`, which runs them; here nothing runs.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from recurra.mixers import MIXERS
from recurra.mixers.wrap import WRAPPERS
from recurra.models import MODELS
from recurra.models.backbone import nearest
from recurra.models.presets import PRESETS
from recurra.tasks import TASKS
from recurra.train.masks import MASKS, connect
from recurra.train.rules import RULES


class Shelf(NamedTuple):
    """Things of one kind by name. `option` is how the command takes their keywords, `given` are those it sets itself,
    `shared` has keywords that all of them take too."""

    one: str
    table: Mapping[str, Any]
    option: str | None = None
    given: tuple[str, ...] = ()
    shared: Any = None


SHELVES = {
    "mixers": Shelf("mixer", MIXERS, "--set", ("width",)),
    "wrappers": Shelf("wrapper", WRAPPERS),
    "models": Shelf("model", MODELS),
    "presets": Shelf("preset", PRESETS),
    "tasks": Shelf("task", TASKS, "--task", ("source",)),
    "rules": Shelf("rule", RULES, "--rule-set", ("model", "task", "config")),
    "masks": Shelf("mask", MASKS, "--mask-set", ("model", "mask", "steps", "seed"), connect),
}


def summaries(kind: str) -> dict[str, str]:
    """Each name of a shelf and its first sentence."""
    return {name: about(thing).partition("\n")[0] for name, thing in SHELVES[kind].table.items()}


def about(thing: Any) -> str:
    """What a thing's own documentation says; a preset's is what it sets."""
    if isinstance(thing, Mapping):
        return ", ".join(f"{key} {value}" for key, value in thing.items())
    return inspect.getdoc(thing) or ""


def entries(name: str) -> list[dict[str, Any]]:
    """All that goes by a name: its kind, what it is, and its keywords with what they are where none is given.

    Raises:
        ValueError: nothing does (the nearest name is given).
    """
    found = [
        {"name": name, "kind": shelf.one, "about": about(shelf.table[name]), "option": shelf.option,
         "keywords": keywords(shelf, shelf.table[name])}
        for shelf in SHELVES.values()
        if name in shelf.table
    ]  # fmt: skip
    if not found:
        names = [*SHELVES, *(x for shelf in SHELVES.values() for x in shelf.table)]
        raise ValueError(f"nothing goes by the name {name!r}{nearest(name, names)}; there are {', '.join(SHELVES)}")
    return found


def keywords(shelf: Shelf, thing: Any) -> dict[str, str]:
    """What a thing may be told, and what it takes where it is not; "" where it must be told."""
    if not callable(thing):
        return {}
    known = dict(inspect.signature(thing).parameters)
    if shelf.shared is not None:
        known |= inspect.signature(shelf.shared).parameters
    plain = {x: y for x, y in known.items() if x not in shelf.given and y.kind is not y.VAR_KEYWORD}
    return {x: "" if y.default is y.empty else str(y.default) for x, y in plain.items()}


def lines(found: dict[str, str]) -> str:
    """Names and sentences for a terminal."""
    width = max(map(len, found))
    return "\n".join(f"{name:{width}}  {sentence}" for name, sentence in found.items())


def told(entry: dict[str, Any]) -> str:
    """An entry for a terminal."""
    lines = [f"{entry['name']}, a {entry['kind']}", "", entry["about"]]
    if entry["keywords"]:
        how = f", as {entry['option']} KEY=VALUE" if entry["option"] else ""
        pairs = ", ".join(f"{x}={y}" if y else x for x, y in entry["keywords"].items())
        lines += ["", f"Keywords{how}: {pairs}"]
    return "\n".join(lines)
