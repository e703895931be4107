"""What the disk says: that it is full, and that something is safely on it."""

import errno
import os
import pathlib

# Python turns a failed write into OSError with one of these; Rust libraries only quote the system's message.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_full(error: BaseException) -> bool:
    """Whether an error, of Python or of safetensors, says that the disk takes no more."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)


def flush(path: pathlib.Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
