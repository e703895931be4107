"""What every architecture is, found by looking at it: nothing here is written down a second time.

A mixer is built and run for a few steps while its scans are watched; so the engines, the implementations that would
take its records on this machine, the bytes of its state and whether they grow are what they are, not what a page says.
"""

import inspect
import re
import sys
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from recurra.mixers import MIXERS
from recurra.mixers.wrap import WRAPPERS
from recurra.ops import native
from recurra.ops.scan import IMPLEMENTATIONS, Scan, name_of, prepare
from recurra.state import nbytes

WIDTH = 256  # at which state is counted
STEPS = 64

# engine -> implementation -> why it declines, None where it runs; fastest first
Runs = dict[str, dict[str, str | None]]


class Row(NamedTuple):
    """One architecture. `state_bytes` are of one sequence at width 256, `growth` the bytes that a step adds to them."""

    name: str
    room: str
    year: int | None
    state_bytes: int
    growth: int
    timed: bool
    runs: Runs
    summary: str

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return self.growth > 0

    @property
    def family(self) -> str:
        """The room and the engines, without those that only serve (the short convolution)."""
        engines = [x for x in self.runs if x not in (self.room, "conv")]
        return "/".join([self.room, *engines])


def catalogue() -> list[Row]:
    """Every row of MIXERS, in its order, with a bar on a terminal: the first time takes a minute."""
    said, bar = "looking (the first time compiles what runs)", Console(stderr=True)
    with native.ahead():
        return [
            describe(name) for name in track(MIXERS, said, console=bar, transient=True, disable=not sys.stderr.isatty())
        ]


def describe(name: str) -> Row:
    """One row."""
    cls = MIXERS[name]
    mixer = cls(WIDTH)
    runs: Runs = {}
    hooks = [x.register_forward_pre_hook(_watch(runs)) for x in mixer.modules() if isinstance(x, Scan)]
    with torch.no_grad():
        _, state = mixer(torch.randn(1, STEPS, WIDTH))
        for hook in hooks:
            hook.remove()
        later = mixer(torch.randn(1, STEPS, WIDTH), state)[1] if mixer.grows else state
    growth = (nbytes(later) - nbytes(state)) // STEPS
    doc = inspect.getdoc(cls) or ""
    room = cls.__module__.removeprefix("recurra.mixers.").partition(".")[0]
    bytes_at_start = nbytes(mixer.initial_state(1))
    return Row(name, room, year(doc), bytes_at_start, growth, mixer.timed, runs, doc.partition("\n")[0])


def year(doc: str) -> int | None:
    """The year of the source: the last one named before the first address."""
    found = re.findall(r"\b(?:19|20)\d\d\b", doc.partition("http")[0])
    return int(found[-1]) if found else None


def _watch(runs: Runs) -> Any:
    def hook(scan: Scan, arguments: tuple[Any, ...]) -> None:
        record, state = prepare(*arguments)
        engine = type(record).__module__.rpartition(".")[2]
        seen = runs.setdefault(engine, {})
        for implementation in IMPLEMENTATIONS[type(record)]:
            # an engine that is used twice runs where both records do
            name = name_of(implementation)
            seen[name] = seen.get(name) or implementation.declines(record, state)

    return hook


def table(rows: list[Row]) -> Table:
    """For a terminal: what runs is listed fastest first."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("mixer", "family", "state bytes", "year", "runs here"):
        shown.add_column(heading, justify="right" if heading in ("state bytes", "year") else "left")
    for row in rows:
        grows = f" + {row.growth:,} a step" if row.growth else ""
        engines = "; ".join(
            f"{x}: {', '.join(k for k, why in runs.items() if not why)}" for x, runs in row.runs.items()
        )
        shown.add_row(row.name, row.family, f"{row.state_bytes:,}{grows}", str(row.year or ""), engines or "torch")
    return shown


def notes(rows: list[Row]) -> list[str]:
    """What the table's numbers are, and why what does not run does not."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for engine, runs in row.runs.items():
            for name, reason in runs.items():
                if reason is not None:
                    reasons.setdefault(f"{name} {engine} does not run here: {reason}", []).append(row.name)
    counted = f"State bytes are of one sequence at width {WIDTH}, whatever its length; a + marks a state that grows."
    wraps = [f"{name} (recurra.mixers.wrap.{cls.__name__})" for name, cls in WRAPPERS.items()]
    around = f"Around any of them, and no mixers themselves: {', '.join(wraps)}."
    return [counted, around, *(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())]
