"""Series from a pipe. A row is learned from when the rows that it forecasts are there."""

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recurra.tasks.base import Batch, SourceError
from recurra.tasks.pipe import BLOCK, PIPE, Pipe, Piped
from recurra.tasks.quantiles import Quantiles
from recurra.tasks.tables import delimiter_of, header_of, numbers_of, times_of


class PipedSeries(Piped, Quantiles):
    r"""Series as their values come: one for every column but that of times.

    As in `Series` inputs are y_t / s and targets (y_{t+h} - y_t) / s, but nobody knows the mean size of a whole past: s
    is that of the values so far, :math:`s_t = \frac{1}{t} \sum_{i \le t} |y_i|`.

    Args:
        pipe: where it comes from: a header, then rows in the order of their times.
        horizon: how many values are forecast at every step.
        quantiles: which, between 0 and 1 and rising.

    Raises:
        SourceError: an argument cannot be used.
    """

    def __init__(
        self, pipe: Pipe, *, horizon: int = 24, quantiles: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)
    ) -> None:
        Quantiles.__init__(self, horizon, quantiles)
        Piped.__init__(self, pipe, horizon)
        self.config = {"task": "series", "source": PIPE, "horizon": horizon, "quantiles": list(quantiles)}
        self.line, self.delimiter, self.rows = b"", "", 0
        self.columns: list[str] = []
        self.time: str | None = None  # of the last row
        self.values = self.scales = np.zeros((0, 0))
        self.total, self.count = np.zeros(0), 0
        self.naive, self.scored = 0.0, 0

    @property
    def said(self) -> str:
        return f"the pipe holds series: {', '.join(self.series)}" if self.columns else "the pipe holds series"

    @property
    def series(self) -> list[str]:
        """The names of all columns but that of times, which is `ds` or the first."""
        return [name for name in self.columns if name != self._time_name]

    @property
    def chance(self) -> float:
        """Who says "as now", over all that was given."""
        return self.naive / self.scored if self.scored else float("nan")

    @property
    def held(self) -> int:
        return len(self.values)

    @property
    def _time_name(self) -> str:
        return "ds" if "ds" in self.columns else self.columns[0]

    def take(self, data: bytes, last: bool) -> None:
        *lines, rest = (self.line + data).split(b"\n")
        self.line = b"" if last else rest
        if len(self.line) > BLOCK:
            raise SourceError(f"after row {self.rows} the pipe has a line of more than {BLOCK} bytes: it is no table")
        rows = self._rows([*lines, rest] if last else lines)
        if rows and not self.columns:
            self._begin(rows.pop(0))
        elif rows and not self.rows and [name.strip() for name in rows[0]] == self.columns:
            # the next file of a run that goes on
            rows.pop(0)
        try:
            self._hold(rows)
        except SourceError:
            # the rows before the wrong one are held
            for row in rows:
                self._hold([row])

    def give(self, steps: int) -> Batch:
        now, scale = self.values[:steps], self.scales[:steps]
        ahead = np.arange(steps)[:, None] + np.arange(1, self.horizon + 1)
        change = (self.values[ahead] - now[:, None]) / scale[:, None]
        self.values, self.scales = self.values[steps:], self.scales[steps:]
        inputs = torch.from_numpy((now / scale).T[..., None].copy()).float()
        batch = Batch(inputs, torch.from_numpy(change.transpose(2, 0, 1).copy()).float())
        total, count = self.score(torch.zeros(*batch.targets.shape, len(self.quantiles)), batch)
        self.naive, self.scored = self.naive + total, self.scored + int(count)
        return batch

    def kept(self) -> dict[str, Any]:
        # a line that was begun is left out: who pipes on begins with a whole one, and half a number is a wrong number
        arrays = {"values": self.values, "scales": self.scales, "total": self.total}
        own = {"columns": self.columns, "time": self.time, "delimiter": self.delimiter}
        return {**own, "count": self.count, **{name: x.tolist() for name, x in arrays.items()}}

    def restore(self, kept: dict[str, Any]) -> None:
        if "columns" not in kept:
            raise SourceError("the run learns from text and this pipe holds a table: pipe more text in")
        self.columns, self.time, self.delimiter = kept["columns"], kept["time"], kept["delimiter"]
        self.count, self.total = kept["count"], np.array(kept["total"])
        shape = len(kept["values"]), len(self.series)
        self.values, self.scales = (np.array(kept[name]).reshape(shape) for name in ("values", "scales"))

    def _rows(self, lines: list[bytes]) -> list[list[str]]:
        try:
            texts = [line.decode("utf-8-sig") for line in lines if line.strip()]
            if texts and not self.delimiter:
                self.delimiter = delimiter_of(texts[0])
            return list(csv.reader(texts, delimiter=self.delimiter)) if texts else []
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"after row {self.rows} the pipe is no table in UTF-8 ({error})") from error

    def _begin(self, row: list[str]) -> None:
        if len(row) < 2:
            raise SourceError(
                "the pipe has one column only: a table begins with a header and has times before its values, as in "
                "t,x; text is read as text with --task format=text"
            )
        columns = header_of("the pipe", row)
        if "unique_id" in columns:
            raise SourceError("the pipe has a column unique_id: give each series a column of its own")
        self.columns = columns
        self.total = np.zeros(len(self.series))
        self.values = self.scales = np.zeros((0, len(self.series)))

    def _hold(self, rows: list[list[str]]) -> None:
        if not rows:
            return
        for number, row in enumerate(rows, self.rows + 1):
            if len(row) != len(self.columns):
                wanted = f"{len(self.columns)} columns ({', '.join(self.columns)})"
                raise SourceError(f"the pipe has {wanted} but {len(row)} values in row {number}")
        columns = dict(zip(self.columns, zip(*rows, strict=True), strict=True))
        values = np.stack([numbers_of("the pipe", name, columns[name], self.rows) for name in self.series], 1)
        self._check_order(columns[self._time_name])
        totals = self.total + np.abs(values).cumsum(0)
        means = totals / (self.count + np.arange(1, len(values) + 1))[:, None]
        self.values = np.concatenate([self.values, values])
        self.scales = np.concatenate([self.scales, np.where(means > 0, means, 1.0)])
        self.total, self.count, self.rows = totals[-1], self.count + len(values), self.rows + len(values)
        self.time = columns[self._time_name][-1]

    def _check_order(self, column: tuple[str, ...]) -> None:
        """Refuse what comes too late: a stream has no second chance to put it in its place."""
        texts = column if self.time is None else (self.time, *column)
        before = self.rows - len(texts) + len(column)
        moments = times_of("the pipe", self._time_name, texts, before)
        late = np.flatnonzero(moments[1:] <= moments[:-1])
        if len(late):
            row, (earlier, later) = before + int(late[0]) + 2, texts[late[0] : late[0] + 2]
            raise SourceError(f"the pipe has the time {later} in row {row}, after {earlier}: rows must come in order")
