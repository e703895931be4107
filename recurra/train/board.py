"""All runs of a comparison at a glance: a table that lives on a terminal, or a plain line now and then."""

import contextlib
import dataclasses
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from recurra.train.progress import Screen

# seconds between plain lines
PAUSE = 15.0


@dataclasses.dataclass
class Standing:
    """How far a run is: "waiting", "training", "done", "failed" or "stopped"."""

    name: str
    steps: int
    status: str = "waiting"
    step: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds: float = 0.0
    held_out: float | None = None

    def read(self, lines: list[dict[str, Any]]) -> None:
        """Take in new lines of metrics.jsonl."""
        for line in lines:
            self.step, self.seconds = line["step"], line["seconds"]
            self.loss = line.get("loss", self.loss)
            self.held_out = line.get("held_out", self.held_out)
            # over the whole run so far: single steps jump about
            self.tokens_per_second = line["tokens"] / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until its last step, at the pace so far."""
        return self.seconds / self.step * (self.steps - self.step) if self.step else None


# of a run's row, in order
COLUMNS = ("run", "", "step", "loss", "held-out", "tokens/s", "seconds left")


def cells(standing: Standing) -> list[str]:
    """A run's row; empty where nothing is known yet."""
    left = standing.left if standing.status == "training" else None
    return [
        standing.name,
        standing.status,
        f"{standing.step}/{standing.steps}",
        "" if standing.loss is None else f"{standing.loss:.3f}",
        "" if standing.held_out is None else f"{standing.held_out:.4g}",
        "" if standing.tokens_per_second is None else f"{standing.tokens_per_second:,.0f}",
        "" if left is None else f"{left:.0f}",
    ]


def sentence(standing: Standing) -> str:
    """A run's row where there is no head to the column: each value with its name."""
    named = zip(COLUMNS, cells(standing), strict=True)
    return "  ".join(f"{name} {value}".strip() for name, value in named if value)


class Board(contextlib.AbstractContextManager[Any]):
    """Who is shown the runs. These are hooks: each does nothing until someone wants to know."""

    def __exit__(self, *error: object) -> None:
        """The comparison is over, well or not."""

    def show(self, standings: list[Standing]) -> None:
        """The runs as they stand now."""

    def say(self, text: str) -> None:
        """Something that the user should know."""


class QuietBoard(Board):
    """Shows nothing."""


class LineBoard(Board):
    """Each run's line when its status changes, and those that train every few seconds."""

    def __init__(self, file: Any, pause: float = PAUSE) -> None:
        self.file, self.pause = file, pause
        self.before: dict[str, str] = {}
        self.due = 0.0

    def show(self, standings: list[Standing]) -> None:
        now = time.monotonic()
        due = now >= self.due
        for standing in standings:
            changed = self.before.get(standing.name, "waiting") != standing.status
            if changed or (due and standing.status == "training" and standing.step):
                self.say(sentence(standing))
            self.before[standing.name] = standing.status
        self.due = now + self.pause if due else self.due

    def say(self, text: str) -> None:
        print(text, file=self.file, flush=True)


class LiveBoard(Board):
    """One table, drawn again and again."""

    def __init__(self, file: Any) -> None:
        self.live = Live(console=Console(file=file), refresh_per_second=4)

    def __enter__(self) -> "LiveBoard":
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def show(self, standings: list[Standing]) -> None:
        table = Table(*COLUMNS, box=None)
        for standing in standings:
            table.add_row(*cells(standing))
        self.live.update(table)

    def say(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)


def for_stderr() -> LiveBoard | LineBoard:
    """A table where stderr is a terminal, otherwise lines."""
    screen = Screen(sys.stderr)
    return LiveBoard(screen) if screen.isatty() else LineBoard(screen)
