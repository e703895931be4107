"""Series: what comes next in numbers, as quantiles. A forecast that does not say how sure it is says half.

What a model sees and says is free of units: values over the mean size of their own series' past, and forecasts as
changes from the last value. A model that says nothing says "as now", and one model serves series of any size.
"""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from recurra.shapes import Float, Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.draws import carried as ring, generator, spread
from recurra.tasks.quantiles import Quantiles
from recurra.tasks.tables import future, read, written

PIECE = 4096  # steps of history given to a model at once; the state carries the rest


class Series(Quantiles):
    r"""Say at every step of a series how its next values will be distributed.

    With s the mean of \|y\| over a series' training part, the input at step t is y_t / s, and the targets are
    (y_{t+h} - y_t) / s for h = 1 to `horizon`. Loss and score are those of `Quantiles`.

    The first part of every series is for training, the last for testing: there the score is over every time from
    which a whole horizon is known, each with the series before it. Chance is the naive forecast at the same times: the
    last value, or the value a season before. A step is a row: gaps in time are not seen.

    Args:
        source: a CSV or Parquet file, long (`unique_id, ds, y`) or wide (see `recurra.tasks.tables.read`).
        horizon: how many values are forecast at every step.
        quantiles: which, between 0 and 1 and rising.
        season: rows in a season, for the naive forecast only; 1: there is none.
        held_out: the fraction of every series that is for testing, and at least one horizon.

    Raises:
        SourceError: the file or an argument cannot be used.
    """

    def __init__(
        self,
        source: str,
        *,
        horizon: int = 24,
        quantiles: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9),
        season: int = 1,
        held_out: float = 0.2,
    ) -> None:
        super().__init__(horizon, quantiles)
        if season < 1:
            raise SourceError(f"season is {season}: it must be at least 1")
        if not 0 < held_out < 1:
            raise SourceError(f"held_out is {held_out}: it must lie between 0 and 1")
        self.source = str(pathlib.Path(source).resolve())
        self.config = {
            "task": "series", "source": self.source, "horizon": horizon, "quantiles": list(quantiles),
            "season": season, "held_out": held_out,
        }  # fmt: skip
        self.season = season
        self.histories = read(self.source)
        # where testing begins
        cuts = [max(0, len(h.y) - max(horizon, round(held_out * len(h.y)))) for h in self.histories]
        both = list(zip(self.histories, cuts, strict=True))
        self.scales = np.array([_scale(h.y[:cut] if cut else h.y) for h, cut in both])
        scaled = [h.y / scale for h, scale in zip(self.histories, self.scales, strict=True)]
        self.streams = {
            "train": _stream([y[:cut] for y, cut in zip(scaled, cuts, strict=True)], [0] * len(cuts), horizon),
            "test": _stream(scaled, [max(0, cut - 1) for cut in cuts], horizon),
        }

    @property
    def chance(self) -> float:
        """The naive forecast at every time that is tested."""
        values, starts, _, first, counts = self._stream("test")
        start, origins = np.repeat(starts, counts), _numbered(first, counts, np.arange(counts.sum()))
        quantiles, total = self.quantiles.double().numpy(), 0.0
        for ahead in range(1, self.horizon + 1):
            before = origins + ahead - self.season * -(-ahead // self.season)
            # nothing a season before: the last value
            naive = values[np.where(before < start, origins, before)]
            error = values[origins + ahead] - naive
            total += np.maximum(quantiles[:, None] * error, (quantiles - 1)[:, None] * error).mean() * 2
        return float(total / self.horizon)

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        """See `Task.batch`. Rows that are not carried are windows of one series each, shorter ones filled up with steps
        that did not happen: for training, anywhere; for testing, up to a time that is forecast, which alone counts.
        Carried rows go round all series, with a reset where one begins.

        Raises:
            SourceError: no series is long enough for one forecast.
        """
        random = generator(split, 0 if carried else index, size, length, seed)
        values, starts, stops, first, counts = self._stream(split)
        if carried:
            begin = 0 if split == "test" else int(random.integers(len(values)))
            positions = ring(index, size, length, len(values), begin)
            which = np.searchsorted(starts, positions, "right") - 1
            scored = positions >= first[which]
        elif split == "train":
            windows = np.where(counts > 0, np.maximum(counts - length + 1, 1), 0)
            start = _numbered(starts, windows, random.integers(0, windows.sum(), size))
            positions = start[:, None] + np.arange(length)
            which = np.searchsorted(starts, start, "right")[:, None] - 1
            scored = positions < stops[which]
        else:
            origin = _numbered(first, counts, spread(index, size, int(counts.sum())))[:, None]
            which = np.searchsorted(starts, origin, "right") - 1
            positions = np.maximum(starts[which], origin - length + 1) + np.arange(length)
            scored = positions == origin
        end = stops[which]
        ahead = positions[..., None] + np.arange(1, self.horizon + 1)
        now = values[np.minimum(positions, end - 1)]
        targets = values[np.minimum(ahead, end[..., None] - 1)] - now[..., None]
        valid, reset = positions < end, (positions == starts[which]) & carried
        return Batch(
            torch.from_numpy(now[..., None]).float(),
            torch.from_numpy(targets).float(),
            torch.from_numpy(scored & (ahead[..., -1] < end)),
            torch.from_numpy(reset) if reset.any() else None,
            None if valid.all() else torch.from_numpy(valid),
        )

    @torch.no_grad()
    def forecast(self, model: torch.nn.Module, steps: int | None = None) -> list[dict[str, Any]]:
        """What follows each series' last value: rows `unique_id, ds, q0.1, ..., q0.9` in the file's units.

        Series of one length run together, in pieces with the state carried, so a long history takes little memory.

        Args:
            model: a forecaster that was trained on a task with this horizon and these quantiles.
            steps: how many, up to the horizon. None: all of it.

        Raises:
            ValueError: more steps than the horizon.
        """
        steps = self.horizon if steps is None else steps
        if not 1 <= steps <= self.horizon:
            raise ValueError(f"{steps} steps cannot be forecast: this model was trained for 1 to {self.horizon}")
        alike = collections.defaultdict(list)
        for number, history in enumerate(self.histories):
            alike[len(history.y)].append(number)
        ahead = np.empty((len(self.histories), steps, len(self.quantiles)))
        for numbers in alike.values():
            past = np.stack([self.histories[i].y for i in numbers]) / self.scales[numbers, None]
            change = _last(model, torch.from_numpy(past).float()[..., None])[:, :steps].double().cpu().numpy()
            ahead[numbers] = (past[:, -1, None, None] + change) * self.scales[numbers, None, None]
        # a quantile is never below a lower one
        ahead.sort(axis=-1)
        names = [f"q{q:g}" for q in self.config["quantiles"]]
        return [
            {"unique_id": history.unique_id, "ds": ds, **dict(zip(names, values, strict=True))}
            for history, rows in zip(self.histories, ahead.tolist(), strict=True)
            for ds, values in zip(written(future(history.ds, steps)), rows, strict=True)
        ]

    def _stream(self, split: str) -> "Stream":
        stream = self.streams[split]
        if not stream.counts.sum():
            longest = max(len(h.y) for h in self.histories)
            raise SourceError(
                f"{self.source} is too short: its longest series has {longest} rows, and a horizon of {self.horizon} "
                f"takes at least {2 * self.horizon + 1}: use a smaller horizon"
            )
        return stream


class Stream(NamedTuple):
    """The scaled values of one split, series end to end, and for every series:"""

    values: np.ndarray
    starts: np.ndarray  # where it begins
    stops: np.ndarray  # where it ends
    first: np.ndarray  # the first position that is forecast from
    counts: np.ndarray  # how many are: those with a whole horizon after them


def _stream(scaled: list[np.ndarray], first: list[int], horizon: int) -> Stream:
    """Series too short to hold anything are left out, so that no two begin at one place."""
    kept = [(y, origin) for y, origin in zip(scaled, first, strict=True) if len(y)]
    lengths = np.array([len(y) for y, _ in kept], dtype=np.int64)
    origins = np.array([origin for _, origin in kept], dtype=np.int64)
    stops = lengths.cumsum()
    values = np.concatenate([y for y, _ in kept]) if kept else np.zeros(0)
    return Stream(values, stops - lengths, stops, stops - lengths + origins, np.maximum(lengths - horizon - origins, 0))


def _numbered(first: np.ndarray, counts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Positions by number: the first `counts[0]` from `first[0]` on, the next `counts[1]` from `first[1]` on, ..."""
    ends = counts.cumsum()
    which = np.searchsorted(ends, numbers, "right")
    return first[which] + numbers - (ends - counts)[which]


def _scale(y: np.ndarray) -> float:
    """The mean size of values; 1 where all are 0."""
    return float(np.abs(y).mean()) or 1.0


def _last(model: torch.nn.Module, past: Float[Tensor, "B T 1"]) -> Float[Tensor, "B H Q"]:
    """The outputs after the last step."""
    outputs, state = torch.empty(0), None
    for piece in past.to(next(model.parameters())).split(PIECE, 1):
        outputs, state = model(piece, state)
    return outputs[:, -1]
