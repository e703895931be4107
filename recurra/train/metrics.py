"""metrics.jsonl: one strict JSON object a line, complete the moment it is written, readable while it grows."""

import io
import json
import os
import pathlib
from typing import Any

from recurra.files import aside
from recurra.train.errors import RunError

NAME = "metrics.jsonl"


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run so far. A last line that was torn when the power went is left out.

    Raises:
        RunError: a line before the last is not JSON.
    """
    path = pathlib.Path(folder) / NAME
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"{path} is damaged at line {number}: it is not JSON") from error
    return found


class Follow:
    """The lines of a run that another process writes, as they come."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path, self.at, self.file = folder / NAME, 0, 0

    def new(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; all of them again where a resumed run has written the file anew."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            self.at, self.file = self.at if number == self.file else 0, number
            file.seek(self.at)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def drop_after(folder: pathlib.Path, step: int) -> None:
    """Forget the lines after `step`: a resumed run writes them again."""
    kept = [line for line in read(folder) if line["step"] <= step]
    with aside(folder / NAME) as fresh:
        fresh.write_text("".join(_encode(line) for line in kept), encoding="utf-8")


def open_to_append(folder: pathlib.Path) -> io.TextIOBase:
    """The file that `write` takes, flushed at every line."""
    return (folder / NAME).open("a", buffering=1, encoding="utf-8")


def write(file: io.TextIOBase, line: dict[str, Any]) -> None:
    """Append one line. NaN and infinity raise ValueError."""
    file.write(_encode(line))


def _encode(line: dict[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
