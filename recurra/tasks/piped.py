"""From what is piped in to a task: looked at, since a pipe has no name that would say what it holds."""

import csv
import inspect
import sys
from typing import Any

from recurra.checks import of_types
from recurra.tasks.base import SourceError
from recurra.tasks.pipe import HOW, Pipe, Piped
from recurra.tasks.piped_series import PipedSeries
from recurra.tasks.piped_text import PipedText
from recurra.tasks.tables import DELIMITERS, delimiter_of, has_decimal_comma, is_missing, is_number

FORMATS = ("text", "csv")


def open_pipe(*, format: str | None = None, descriptor: int | None = None, **keywords: Any) -> Piped:
    """The task of a pipe, which is looked at where no format is given: waits for its first two lines.

    Args:
        format: "text", or "csv" for a table with a header, a column of times and one for each series.
        descriptor: of the pipe; None: standard input.
        keywords: of `PipedText` or `PipedSeries`.

    Raises:
        SourceError: nothing is piped in, it is empty, or a keyword does not fit what it holds.
        ValueError: a keyword is of another type.
    """
    if format not in (None, *FORMATS):
        raise SourceError(f"format is {format!r}: a pipe holds {' or '.join(FORMATS)}")
    if descriptor is None and sys.stdin is None:
        raise SourceError(f"the pipe is closed: {HOW}")
    pipe = Pipe(sys.stdin.fileno() if descriptor is None else descriptor)
    first = pipe.peek(2)
    if not first:
        raise SourceError(f"the pipe is empty: {HOW}")
    table = format == "csv" or (format is None and is_table(first))
    kind = PipedSeries if table else PipedText
    known = inspect.signature(kind).parameters.keys() - {"pipe"}
    if unknown := sorted(keywords.keys() - known):
        held = "a table" if table else "text"
        raise SourceError(
            f"the pipe holds {held}, which has no keyword {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    of_types(kind, keywords)
    return kind(pipe, **keywords)


def is_table(start: bytes) -> bool:
    """Whether a stream that begins so is a table: names, then as many values, which but for the time are numbers.

    Some may be missing, but not all, or have decimal commas, and there may be one column only: a table is refused for
    that, and is not read as text.
    """
    try:
        lines = [line for line in start.decode("utf-8-sig").splitlines() if line.strip()][:2]
    except UnicodeDecodeError:
        return False
    if len(lines) < 2:
        return False
    if is_number(lines[1]) and len(lines[0].split()) == 1 and not set(lines[0]) & set(DELIMITERS):
        return True
    delimiter = delimiter_of(lines[0])
    try:
        header, row = csv.reader(lines, delimiter=delimiter)
    except (csv.Error, ValueError):
        return False
    values = [x for name, x in zip(header, row, strict=False) if name.strip() != "ds"] if "ds" in header else row[1:]
    named = len(header) == len(row) > 1 and all(name.strip() for name in header)
    numbers = [is_number(x) or has_decimal_comma(x) for x in values]
    return named and any(numbers) and all(number or is_missing(x) for number, x in zip(numbers, values, strict=True))
