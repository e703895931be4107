"""The lines that a text's models are held against, computed once for a folder and kept in reference.json."""

import json
import pathlib
import sys

from recurra.files import write_json
from recurra.tasks import PIPE, SourceError, Text, make, reference

NAME = "reference.json"
LARGEST = 1 << 26  # bytes of text; counting more takes minutes


def references(folder: pathlib.Path) -> dict[str, float]:
    """The reference lines of the text that a run's or a comparison's folder was trained on.

    Empty where the task is not text, the text is large, came through a pipe, or is no longer there.
    """
    path = folder / NAME
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    config = next(iter(sorted((*folder.glob("config.json"), *folder.glob("*/config.json")))), None)
    settings = {} if config is None else json.loads(config.read_text(encoding="utf-8")).get("task", {})
    if settings.get("task") != "text" or settings.get("source") == PIPE:
        return {}
    try:
        task = make(settings)
    except SourceError:
        return {}
    assert isinstance(task, Text)
    train, test = (task.contents(split) for split in ("train", "test"))
    if len(train) + len(test) > LARGEST:
        return {}
    print("counting the reference lines of the text (once)", file=sys.stderr, flush=True)
    found = reference.lines(train, test)
    write_json(path, found)
    return found
