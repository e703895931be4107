"""Tasks whose data is not there yet: a pipe is read as it comes, once, and no more of it is held than a batch takes.

A batch here is not a function of its number: it is what comes next, and what was given is gone. So these tasks are
for training without end only (`recurra.train.stream`), and what they hold back between batches, the last token or the
rows that a forecast still waits for, is handed to checkpoints.
"""

import abc
import os
import select
from collections.abc import Callable
from typing import Any

from recurra.tasks.base import Batch, SourceError, Task

PIPE = "-"  # the source's name: standard input
BLOCK = 1 << 16  # bytes taken at once, and the most that a line of a table may have
PATIENCE = 0.2  # seconds between two questions whether to go on waiting
HOW = "pipe a text or a table in, as in cat series.csv | recurra train - --endless"


class Dry(Exception):
    """Nothing more is given: the pipe is over, or nobody wants to wait for it any longer."""


class Pipe:
    """Bytes from a file descriptor, as they come.

    Args:
        descriptor: of a pipe, a file or a socket.

    Raises:
        SourceError: there is nothing to read from: it is closed, or a terminal.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            os.fstat(descriptor)
        except OSError as error:
            raise SourceError(f"the pipe is closed: {HOW}") from error
        if os.isatty(descriptor):
            raise SourceError(f"nothing is piped in, the input is a terminal: {HOW}")
        self.descriptor, self.over, self.first = descriptor, False, b""

    def read(self, asked: Callable[[], bool] = lambda: False) -> bytes:
        """What came; nothing when the pipe is over, or when `asked`, which is called while nothing comes, says so."""
        if self.first:
            held, self.first = self.first, b""
            return held
        while not self.over:
            if select.select([self.descriptor], [], [], PATIENCE)[0]:
                data = os.read(self.descriptor, BLOCK)
                self.over = not data
                return data
            if asked():
                break
        return b""

    def peek(self, lines: int) -> bytes:
        """The first lines, which `read` gives again; less of the last where it is long, or the pipe is over.

        Blank lines in front do not count.
        """
        held = b""
        while held.lstrip().count(b"\n") < lines and len(held) < BLOCK and not self.over:
            held += self.read()
        self.first = held
        return held


class Piped(Task):
    """What comes through a pipe, one long row, or one for every column. A subclass says how bytes become steps.

    Args:
        pipe: where it comes from.
        ahead: how many steps must be known after one before it can be learned from.
    """

    def __init__(self, pipe: Pipe, ahead: int) -> None:
        self.pipe, self.ahead, self.ended = pipe, ahead, False
        self.asked: Callable[[], bool] = lambda: False  # whether waiting should end

    @property
    @abc.abstractmethod
    def said(self) -> str:
        """What the pipe holds, for people."""

    @property
    @abc.abstractmethod
    def held(self) -> int:
        """How many steps were read and not yet given."""

    @abc.abstractmethod
    def take(self, data: bytes, last: bool) -> None:
        """Hold what these bytes say as well; after the `last` nothing comes.

        Raises:
            SourceError: they are not what they should be.
        """

    @abc.abstractmethod
    def give(self, steps: int) -> Batch:
        """The next steps, with what follows them; they are not held any longer."""

    @abc.abstractmethod
    def kept(self) -> dict[str, Any]:
        """What is held, as JSON: what a stopped run needs to go on as if it had not stopped."""

    @abc.abstractmethod
    def restore(self, kept: dict[str, Any]) -> None:
        """Hold what a run held when it stopped, and then what comes.

        Raises:
            SourceError: that was of another kind.
        """

    def fill(self, steps: int) -> int:
        """Read until so many steps can be given, or nothing more comes. Returns how many can."""
        while not self.ended and self.held < steps + self.ahead:
            data = self.pipe.read(self.asked)
            # who stops us often stops the writer as well, perhaps within a line: that is not the pipe's end
            if not data and (not self.pipe.over or self.asked()):
                return 0
            self.take(data, last=self.pipe.over)
            self.ended = self.pipe.over
        return max(0, min(steps, self.held - self.ahead))

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        """What comes next, whatever the number; the last batch may be shorter.

        Raises:
            Dry: nothing more is given.
            SourceError: what came is malformed.
        """
        if size != 1 or split != "train":
            raise SourceError(f"a pipe is one stream to learn from: it has no {size} rows, and no {split} split")
        steps = self.fill(length)
        if not steps:
            raise Dry
        return self.give(steps)
