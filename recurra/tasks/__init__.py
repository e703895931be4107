"""The tasks, by name. To add one: write its file, add its line here, write its test."""

import difflib
import inspect
import os
import pathlib
from typing import Any

from recurra.checks import of_types
from recurra.tasks.adding import Adding as Adding
from recurra.tasks.associative_recall import AssociativeRecall as AssociativeRecall
from recurra.tasks.base import Batch as Batch, SourceError as SourceError, Task as Task
from recurra.tasks.copying import Copying as Copying
from recurra.tasks.corpus import STANDARD_LIBRARY
from recurra.tasks.delayed_match import DelayedMatch as DelayedMatch
from recurra.tasks.flip_flop import FlipFlop as FlipFlop
from recurra.tasks.graph_reachability import GraphReachability as GraphReachability
from recurra.tasks.induction import Induction as Induction
from recurra.tasks.latching import Latching as Latching
from recurra.tasks.letter_to_sound import LetterToSound as LetterToSound
from recurra.tasks.modular_counting import ModularCounting as ModularCounting
from recurra.tasks.moving_shapes import MovingShapes as MovingShapes
from recurra.tasks.nested_logic import NestedLogic as NestedLogic
from recurra.tasks.ordered_events import OrderedEvents as OrderedEvents
from recurra.tasks.parity import Parity as Parity
from recurra.tasks.pen_strokes import PenStrokes as PenStrokes
from recurra.tasks.pipe import PIPE as PIPE, Dry as Dry, Piped as Piped
from recurra.tasks.piped import open_pipe as open_pipe
from recurra.tasks.recordings import Recordings as Recordings
from recurra.tasks.relational_text import RelationalText as RelationalText
from recurra.tasks.rewrites import Rewrites as Rewrites
from recurra.tasks.selective_copying import SelectiveCopying as SelectiveCopying
from recurra.tasks.sequential_digits import SequentialDigits as SequentialDigits
from recurra.tasks.series import Series as Series
from recurra.tasks.spiral_paths import SpiralPaths as SpiralPaths
from recurra.tasks.spoken_digits import SpokenDigits as SpokenDigits
from recurra.tasks.state_tracking import StateTracking as StateTracking
from recurra.tasks.tables import CSV, PARQUET
from recurra.tasks.text import Text as Text
from recurra.tasks.window_parity import WindowParity as WindowParity

TASKS: dict[str, type[Task]] = {
    "text": Text,
    "series": Series,
    "copying": Copying,
    "selective_copying": SelectiveCopying,
    "associative_recall": AssociativeRecall,
    "rewrites": Rewrites,
    "parity": Parity,
    "modular_counting": ModularCounting,
    "state_tracking": StateTracking,
    "latching": Latching,
    "induction": Induction,
    "ordered_events": OrderedEvents,
    "adding": Adding,
    "flip_flop": FlipFlop,
    "window_parity": WindowParity,
    "delayed_match": DelayedMatch,
    "recordings": Recordings,
    "nested_logic": NestedLogic,
    "graph_reachability": GraphReachability,
    "relational_text": RelationalText,
    "letter_to_sound": LetterToSound,
    "pen_strokes": PenStrokes,
    "spoken_digits": SpokenDigits,
    "moving_shapes": MovingShapes,
    "spiral_paths": SpiralPaths,
    "sequential_digits": SequentialDigits,
}
FROM_FILES = ("text", "series")  # tasks that are made from a source and not by their name alone


def make(config: dict[str, Any]) -> Task:
    """The task of a configuration: `{"task": name, **keywords}`, as in `Task.config`.

    Raises:
        SourceError: there is no such task or keyword (the nearest is named), or the task refuses them.
        ValueError: a keyword is of another type.
    """
    keywords = dict(config)
    name = keywords.pop("task", None)
    if name not in TASKS:
        raise SourceError(f"there is no task {name!r}{_nearest(str(name), TASKS)}; there are {', '.join(TASKS)}")
    known = inspect.signature(TASKS[name]).parameters
    for keyword in keywords:
        if keyword not in known:
            raise SourceError(
                f"the task {name} has no keyword {keyword!r}{_nearest(keyword, known)}; "
                f"it has {', '.join(known) or 'none'}"
            )
    if "source" in known and "source" not in keywords:
        raise SourceError(f"the task {name} needs a source: give a file")
    of_types(TASKS[name], keywords)
    return TASKS[name](**keywords)


def open_source(source: str | os.PathLike[str], /, **keywords: Any) -> Task:
    """The task that a source stands for: a task's name, "stdlib", a CSV or Parquet file, a text file or folder, or "-",
    which is what is piped in.

    A file that has the name of a task, or is called -, is given as `./name`.

    Raises:
        SourceError: the source is none of these, or cannot be used; in one sentence.
        ValueError: a keyword is of another type.
    """
    if taken := sorted(keywords.keys() & {"task", "source", "descriptor"}):
        raise SourceError(f"{taken[0]} is no keyword of a task here: the source says it")
    source = os.fspath(source)
    if not source:
        raise SourceError("the source is empty text: give a text file or folder, or . for this one")
    path = pathlib.Path(source)
    if source == PIPE:
        return open_pipe(**keywords)
    if source in TASKS and source not in FROM_FILES:
        return make({"task": source, **keywords})
    if path.suffix.lower() in CSV + PARQUET and not path.is_dir():
        return make({"task": "series", "source": source, **keywords})
    if source == STANDARD_LIBRARY or path.exists():
        return make({"task": "text", "source": source, **keywords})
    names = [STANDARD_LIBRARY, *(name for name in TASKS if name not in FROM_FILES)]
    raise SourceError(
        f"{source} does not exist{_nearest(source, names)}: give a text file or folder, a CSV or Parquet file, or one "
        f"of {', '.join(names)}"
    )


def _nearest(word: str, known: Any) -> str:
    """What may have been meant, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""
