"""Recurrent sequence models: every architecture on a handful of shared scans, under one law: a cut changes nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recurra.pages import prefer_huge

if TYPE_CHECKING:
    from recurra.clock import Clock as Clock
    from recurra.mixers import MIXERS as MIXERS
    from recurra.ops.scan import use as use

__version__ = "0.1.0"

prefer_huge()

_WINDOW = {"Clock": "recurra.clock", "MIXERS": "recurra.mixers", "use": "recurra.ops.scan"}


def __getattr__(name: str) -> Any:
    """The shop window, fetched when it is looked at: importing torch takes seconds, `recurra --help` must not."""
    if name not in _WINDOW:
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    return getattr(import_module(_WINDOW[name]), name)
