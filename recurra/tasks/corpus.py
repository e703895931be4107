"""From a path to documents. What is text and what is not is decided here once, before anything is trained on it."""

import os
import pathlib
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recurra.tasks.base import SourceError

STANDARD_LIBRARY = "stdlib"
SAMPLE = 2**20  # bytes looked at to tell text from the rest

# Tests, demonstrations, one long string of manual, and what others may have installed.
LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "ensurepip", "__pycache__"}
    | {"site-packages", "dist-packages"}
)


class Document(NamedTuple):
    """A name that is the same on every machine, and the bytes."""

    name: str
    data: np.ndarray  # uint8


def documents(source: str) -> list[Document]:
    """The text of a file, of every text file in a folder and below (in order of their names), or of "stdlib".

    "stdlib" is the source code of Python's own standard library, as installed here: every `.py` file but those of
    `LEFT_OUT`. It is the same at every call, and differs between versions of Python. In folders, what begins with a
    dot is left out, and so is every file that is empty or not text.

    Raises:
        SourceError: the source is missing, empty, not text, or has no text in it.
    """
    if source == STANDARD_LIBRARY:
        return _standard_library()
    path = pathlib.Path(source)
    try:
        if path.is_dir():
            found = [Document(name, data) for name, data in _folder(path) if len(data) and is_text(data)]
            if not found:
                raise SourceError(f"{source} has no text files in it: give a folder that has, or a text file")
            return found
        return [Document(path.name, _file(path))]
    except OSError as error:
        raise SourceError(
            f"{error.filename or source} cannot be read ({error.strerror}): give a text file or a folder of them"
        ) from error


def is_text(data: np.ndarray) -> bool:
    """Whether bytes are text: none is 0, and at least seven in ten decode as UTF-8."""
    sample = data[:SAMPLE].tobytes()
    return 0 not in sample and len(sample.decode("utf-8", "ignore").encode()) >= 0.7 * len(sample)


def _file(path: pathlib.Path) -> np.ndarray:
    """The bytes of one file, which may be larger than memory: mapped, not read."""
    if not path.exists():
        raise SourceError(f"{path} does not exist: give a text file, a folder of them, or a task's name")
    if not path.is_file():
        raise SourceError(f"{path} is no file: give a text file, a folder of them, or a task's name")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: give a file with text in it")
    data = np.memmap(path, np.uint8, "r")
    if not is_text(data):
        raise SourceError(f"{path} is not text: give a file of text, best in UTF-8")
    return data


def _folder(top: pathlib.Path, suffix: str = "", left_out: frozenset[str] = frozenset()) -> Iterator[Document]:
    """Every file below, by name; links to folders are not followed."""
    for folder, inner, files in os.walk(top, onerror=_raise):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in left_out)
        for name in sorted(files):
            path = pathlib.Path(folder, name)
            if not name.startswith(".") and name.endswith(suffix) and path.is_file():
                yield Document(path.relative_to(top).as_posix(), np.fromfile(path, np.uint8))


def _raise(error: OSError) -> None:
    raise error


def _standard_library() -> list[Document]:
    top = pathlib.Path(sysconfig.get_paths()["stdlib"])
    found = [
        Document(name, data)
        for name, data in _folder(top, ".py", LEFT_OUT)
        # the build's settings hold this machine's paths
        if len(data) and is_text(data) and not name.startswith("_sysconfigdata")
    ]
    if not found:
        raise SourceError(f"this Python has no source code of its standard library in {top}: give a file or a folder")
    return found
