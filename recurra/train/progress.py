"""What a run shows while it works: a bar on a terminal, plain lines in a file or a pipe, nothing when asked."""

import contextlib
import math
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as RichProgress, TextColumn, TimeRemainingColumn

# seconds between plain lines
PAUSE = 10.0


class Screen:
    """A stream that may go away, as a closed terminal does: then nothing more is shown, and the work goes on."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self.file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.file.flush()


class Progress(contextlib.AbstractContextManager[Any]):
    """Who is told what happens. These are hooks: each does nothing until someone wants to know."""

    def __exit__(self, *error: object) -> None:
        """The run is over, well or not."""

    def begin(self, step: int, steps: int | None, nats: bool) -> None:
        """A run of `steps` (None: it has no end) goes on after `step`.

        `nats`: its loss is a surprise, which is also told in bits.
        """

    def line(self, line: dict[str, Any]) -> None:
        """A line was written to metrics.jsonl."""

    def say(self, text: str) -> None:
        """Something that the user should know."""


class Quiet(Progress):
    """Shows nothing."""


class Lines(Progress):
    """Plain lines: every evaluation, and a step every few seconds."""

    def __init__(self, file: Any, pause: float = PAUSE) -> None:
        self.file, self.pause = file, pause
        self.steps: int | None = 0
        self.nats, self.due = False, 0.0

    def begin(self, step: int, steps: int | None, nats: bool) -> None:
        self.steps, self.nats = steps, nats

    def line(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        if "loss" not in line or now >= self.due or line["step"] == self.steps:
            self.due = now + self.pause if "loss" in line else self.due
            end = "" if self.steps is None else f"/{self.steps}"
            self.say(f"step {line['step']}{end}  {tell(line, self.nats)}")

    def say(self, text: str) -> None:
        print(text, file=self.file, flush=True)


class Bar(Progress):
    """A bar with the loss, the last held-out score, tokens per second and the time left."""

    def __init__(self, file: Any) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"), TimeRemainingColumn())
        self.bar = RichProgress(*columns, console=Console(file=file))
        self.nats, self.now, self.held_out = False, "", ""

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, step: int, steps: int | None, nats: bool) -> None:
        self.nats = nats
        self.run = self.bar.add_task("", total=steps, completed=step, now="")

    def line(self, line: dict[str, Any]) -> None:
        if "held_out" in line:
            self.held_out = tell(line, self.nats)
        else:
            self.now = tell(line, self.nats)
        self.bar.update(self.run, completed=line["step"], now=f"{self.now}  {self.held_out}")

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


def for_stderr() -> Bar | Lines:
    """A bar where stderr is a terminal, otherwise lines."""
    screen = Screen(sys.stderr)
    return Bar(screen) if screen.isatty() else Lines(screen)


def tell(line: dict[str, Any], nats: bool) -> str:
    """A line of metrics.jsonl for people; `nats`: the loss is told in bits too."""
    if "held_out" in line:
        return f"held-out {line['measure']} {line['held_out']:.4g}"
    bits = f" ({line['loss'] / math.log(2):.3f} bits)" if nats else ""
    # over the whole run: single steps jump about
    pace = line["tokens"] / max(line["seconds"], 1e-9)
    return f"loss {line['loss']:.4f}{bits}  {pace:,.0f} tokens/s"
