"""Writing files so that a full disk, a kill or a second process never leaves half of one: aside, synced, renamed."""

import contextlib
import errno
import importlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

# Python turns a failed write into OSError with one of these; Rust libraries only quote the system's message.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextlib.contextmanager
def aside(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Give a path to write to; when the block ends well it becomes `path`, otherwise it is removed."""
    path = pathlib.Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        flush(fresh)
        # some writers make files that only their owner may read
        os.chmod(fresh, 0o666 & ~_UMASK)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder inside against other processes that would hold it; however this one ends, it lets go.

    Where the system has no such locks (Windows, some disks of a network), nothing is held.

    Raises:
        ValueError: another process holds it.
    """
    try:
        locks: Any = importlib.import_module("fcntl")
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        locks.flock(handle, locks.LOCK_EX | locks.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ValueError(f"another process writes into {folder}: wait for its end, or give another folder") from error
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Strict JSON (no NaN), indented, written aside."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with aside(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def flush(path: pathlib.Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: BaseException) -> bool:
    """Whether an error, of Python or of safetensors, says that the disk takes no more."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(f"os error {number})" in str(error) for number in _FULL)
