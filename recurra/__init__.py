"""Recurrent sequence models: every architecture on a handful of shared scans, under one law: a cut changes nothing."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra.clock import Clock as Clock
    from recurra.mixers import MIXERS as MIXERS
    from recurra.ops.scan import use as use

__version__ = "0.1.0"

# torch asks for huge pages for its large arrays, where the system lends them: an array of a long sequence otherwise
# costs a fault for every 4 KiB, each time that it is made. Read by torch once; who sets it to 0 before keeps it off.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_WINDOW = {"Clock": "recurra.clock", "MIXERS": "recurra.mixers", "use": "recurra.ops.scan"}


def __getattr__(name: str) -> Any:
    """The shop window, fetched when it is looked at: importing torch takes seconds, `recurra --help` must not."""
    if name not in _WINDOW:
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    return getattr(import_module(_WINDOW[name]), name)
