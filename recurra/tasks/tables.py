"""From a CSV or Parquet file to series. Whatever is wrong with the file is said here, with its column and row.

A CSV needs no pandas: two passes over lists of strings read a million rows in a few seconds.
"""

import collections
import csv
import importlib
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from recurra.tasks.base import SourceError

CSV, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
DELIMITERS = ",;\t|"
LONG = ("unique_id", "ds", "y")
Column = Sequence[Any] | np.ndarray
MISSING = ("", "na", "n/a", "nan", "null", "none", "nat")


class History(NamedTuple):
    """One series: its name, its times in order (numbers or datetime64), its values (float64)."""

    unique_id: str
    ds: np.ndarray
    y: np.ndarray


def read(source: str) -> list[History]:
    """The series of a file, in the order in which they first appear, each sorted by time.

    The shape is long where there is a column `unique_id` (then `ds` and `y` are the others), else wide: times in `ds`
    or else in the first column, and every other column a series. Times are whole numbers, or ISO dates or timestamps
    in UTC. Rows may come in any order, and times may have gaps: a step is a row. A time may come once only.

    Raises:
        SourceError: the file is missing, empty, malformed, or holds what is no time or no number.
    """
    path = pathlib.Path(source)
    if not path.is_file():
        raise SourceError(f"{source} does not exist: give a CSV or Parquet file")
    if path.stat().st_size == 0:
        raise SourceError(f"{source} is empty: give a CSV or Parquet file with a header and rows")
    columns = _parquet(path) if path.suffix.lower() in PARQUET else _csv(path)
    short = [name for name, column in columns.items() if len(column) < 2]
    if short:
        rows = ("no rows", "one row only")[len(columns[short[0]])]
        raise SourceError(f"{source} has {rows}: a series needs at least two")
    return _long(source, columns) if "unique_id" in columns else _wide(source, columns)


def future(ds: np.ndarray, steps: int) -> np.ndarray:
    """The next `steps` times after `ds`: by the calendar where times are months apart, else by the commonest step."""
    ahead = np.arange(1, steps + 1)
    if ds.dtype.kind == "M":
        months = ds.astype("M8[M]")
        offset = ds - months
        month_ends = (ds.astype("M8[D]") + 1).astype("M8[M]") > months
        step = np.diff(months).astype(np.int64)
        if step.min() >= 1 and ((offset == offset[0]).all() or month_ends.all()):
            following = months[-1] + ahead * _commonest(step)
            last = (following + 1).astype(ds.dtype) - np.timedelta64(1, "D")
            return last if month_ends.all() else np.minimum(following.astype(ds.dtype) + offset[-1], last)
    return ds[-1] + ahead * _commonest(np.diff(ds))


def written(ds: np.ndarray) -> list[int | float | str]:
    """Times as they stand in a file: numbers, or ISO strings."""
    return np.datetime_as_string(ds).tolist() if ds.dtype.kind == "M" else ds.tolist()


def _long(source: str, columns: dict[str, Column]) -> list[History]:
    missing = [name for name in LONG if name not in columns]
    if missing:
        raise SourceError(f"{source} has a column unique_id but no column {missing[0]}: the long shape needs {LONG}")
    extra = [name for name in columns if name not in LONG]
    if extra:
        raise SourceError(f"{source} has a column {extra[0]} that no model here would use: keep {', '.join(LONG)} only")
    numbers: dict[str, int] = {}
    names = [str(x) for x in columns["unique_id"]]
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    if any(map(is_missing, numbers)):
        row = next(i for i, name in enumerate(names) if is_missing(name))
        raise SourceError(f"{source} has no unique_id in row {row + 1}: name the series in every row")
    ds, y = times_of(source, "ds", columns["ds"]), numbers_of(source, "y", columns["y"])
    order = np.lexsort((ds, codes))
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return [
        _history(source, name, ds[rows], y[rows]) for name, rows in zip(numbers, np.split(order, ends), strict=True)
    ]


def _wide(source: str, columns: dict[str, Column]) -> list[History]:
    if len(columns) < 2:
        raise SourceError(f"{source} has one column only: it needs one of times and one or more of values")
    time = "ds" if "ds" in columns else next(iter(columns))
    ds = times_of(source, time, columns[time])
    order = ds.argsort(kind="stable")
    series = {name: numbers_of(source, name, column) for name, column in columns.items() if name != time}
    return [_history(source, name, ds[order], y[order]) for name, y in series.items()]


def _history(source: str, name: str, ds: np.ndarray, y: np.ndarray) -> History:
    if len(y) < 2:
        raise SourceError(f"{source} has one row only of the series {name}: a series needs at least two")
    twice = np.flatnonzero(ds[1:] == ds[:-1])
    if len(twice):
        raise SourceError(f"{source} has the time {ds[twice[0]]} twice in the series {name}: keep one row a time")
    return History(name, ds, y)


def _csv(path: pathlib.Path) -> dict[str, Column]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=delimiter_of(first)) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is not a CSV file in UTF-8 ({error}): give one, or a Parquet file") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): give a CSV or Parquet file") from error
    if not rows or "\0" in first:
        raise SourceError(f"{path} is not a CSV file: give one with a header and rows, or a Parquet file")
    header, *rows = header_of(str(path), rows[0]), *rows[1:]
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if wrong is not None:
        raise SourceError(f"{path} has {len(header)} columns but another number of values in row {wrong + 1}")
    return dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))


def delimiter_of(line: str) -> str:
    """What stands between the values of a table, by its first line; what is quoted does not count."""
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", line).count)


def header_of(source: str, row: Sequence[str]) -> list[str]:
    """The names in a table's first row.

    Raises:
        SourceError: they name no columns, or two alike.
    """
    header = [name.strip() for name in row]
    if is_number(header[0]) or _is_date(header[0]):
        raise SourceError(f"{source} begins with {header[0]}, which names no column: begin with a header")
    double = [name for name, count in collections.Counter(header).items() if count > 1]
    if double:
        raise SourceError(f"{source} has two columns {double[0]!r}: give each its own name")
    return header


def _parquet(path: pathlib.Path) -> dict[str, Column]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SourceError("a Parquet file needs the package pyarrow: pip install 'recurra[forecast]'") from error
    try:
        table = parquet.read_table(path)
    # ArrowInvalid is a ValueError
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is not a whole Parquet file ({error}): give one, or a CSV file") from error
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.to_numpy()
        columns[name] = array if array.dtype.kind in "iufM" else column.to_pylist()
    return columns


def numbers_of(source: str, name: str, column: Column, before: int = 0) -> np.ndarray:
    """A column as finite float64; `before` it the file has so many rows."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        values = column.astype(np.float64)
    else:
        try:
            values = np.fromiter(map(float, column), np.float64, len(column))
        except (TypeError, ValueError):
            row = next(i for i, x in enumerate(column) if not is_number(x))
            _refuse(source, name, before + row, column[row], "a number")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        _refuse(source, name, before + int(bad[0]), column[bad[0]], "a number")
    return values


def times_of(source: str, name: str, column: Column, before: int = 0) -> np.ndarray:
    """A column as whole numbers, float64, or datetime64 no finer than it must be; `before` it are so many rows."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        dates = column
    elif is_number(column[0]):
        values = numbers_of(source, name, column, before)
        return values.astype(np.int64) if (values == np.rint(values)).all() else values
    else:
        texts = [str(x).strip().removesuffix("Z").removesuffix("+00:00") for x in column]
        try:
            dates = _dates(texts)
        except (ValueError, UserWarning):
            row = next(i for i, x in enumerate(texts) if not _is_date(x))
            _refuse(source, name, before + row, column[row], "a time: write numbers, or UTC as 2026-01-31T12:00")
    bad = np.flatnonzero(np.isnat(dates))
    if len(bad):
        _refuse(source, name, before + int(bad[0]), column[bad[0]], "a time")
    exact = (unit for unit in ("D", "s", "ms", "us") if (dates.astype(f"M8[{unit}]") == dates).all())
    return dates.astype(f"M8[{next(exact, 'ns')}]")


def _refuse(source: str, name: str, row: int, value: Any, wanted: str) -> NoReturn:
    """Say what is wrong with one value."""
    if is_missing(value):
        raise SourceError(f"{source} has no value in column {name}, row {row + 1}: fill it or leave the row out")
    wanted = f"{wanted}: write {value.strip().replace(',', '.')}" if has_decimal_comma(value) else wanted
    raise SourceError(f"{source} has {str(value)!r} in column {name}, row {row + 1}: that is not {wanted}")


def is_number(x: Any) -> bool:
    """Whether this can be read as a number."""
    try:
        float(x)
    except (TypeError, ValueError):
        return False
    return True


def has_decimal_comma(x: Any) -> bool:
    """Whether this would be a number with a point in place of its comma."""
    return isinstance(x, str) and x.count(",") == 1 and not is_number(x) and is_number(x.replace(",", "."))


def is_missing(x: Any) -> bool:
    """Whether this says that there is no value."""
    return x is None or str(x).strip().lower() in MISSING


def _dates(texts: list[str]) -> np.ndarray:
    """Strings as dates; offsets from UTC, of which numpy only warns, are refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.array(texts, dtype="datetime64")


def _is_date(text: str) -> bool:
    try:
        return not np.isnat(_dates([text])[0])
    except (ValueError, UserWarning):
        return False


def _commonest(steps: np.ndarray) -> Any:
    """The value that occurs most often; of several, the least."""
    values, counts = np.unique(steps, return_counts=True)
    return values[counts.argmax()]
