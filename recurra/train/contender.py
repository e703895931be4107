"""What a comparison sets side by side: mixers, ways to learn, sparse weights, and all their combinations."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

NONE = "none"  # the mask where all weights are there


class Contender(NamedTuple):
    """One of them.

    Args:
        pattern: of mixers.
        rule: how it learns.
        mask: which weights there are.
    """

    pattern: str
    rule: str = "bptt"
    mask: str = NONE

    @property
    def name(self) -> str:
        """What it is called in tables: "elman", "elman by rtrl", "elman with rigl"."""
        by = "" if self.rule == "bptt" else f" by {self.rule}"
        return f"{self.pattern}{by}" if self.mask == NONE else f"{self.pattern}{by} with {self.mask}"

    @property
    def folder(self) -> str:
        """The name as a folder's: "elman-rtrl"."""
        return label(self.name.replace(" by ", "-").replace(" with ", "-"))


def contenders(mixers: Iterable[str], rules: Iterable[str], masks: Iterable[str]) -> Iterator[Contender]:
    """All combinations."""
    return itertools.starmap(Contender, itertools.product(mixers, rules, masks))


def contender(config: dict[str, Any]) -> Contender:
    """Whose run it is that wrote a config.json."""
    training = config["training"]
    return Contender(config["model"]["pattern"], training.get("rule", "bptt"), training.get("mask") or NONE)


def label(pattern: str) -> str:
    """A pattern as a folder's name: "mamba2*3,sliding_window" is "mamba2x3+sliding_window"."""
    return pattern.replace("*", "x").replace(",", "+")
