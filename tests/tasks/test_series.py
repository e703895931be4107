"""Series: batches that never look ahead, the naive's score, forecasts in the file's units.

`air_passengers.csv` is series G of Box and Jenkins, *Time Series Analysis*, 1976: thousands of airline passengers a
month, 1949 to 1960. All other series here are made up.
"""

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from recurra.models import MODELS
from recurra.tasks import Series, SourceError, make, open_source

PASSENGERS = str(pathlib.Path(__file__).with_name("air_passengers.csv"))


def write(top, text, name="t.csv"):
    (top / name).write_text(text)
    return str(top / name)


@pytest.fixture
def three(tmp_path):
    """Series of 60, 25 and 90 rows, of very different sizes, in the long shape and out of order."""
    random = np.random.default_rng(0)
    rows = [
        (f"s{i}", t, round(10.0**i * (3 + random.random()), 3)) for i, n in enumerate((60, 25, 90)) for t in range(n)
    ]
    random.shuffle(rows)
    return write(tmp_path, "unique_id,ds,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))


class Naive(torch.nn.Module):
    """Says "as now", and can only be run in order: its state counts the steps."""

    def __init__(self, horizon, quantiles):
        super().__init__()
        self.shape = horizon, quantiles
        self.still = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, state=None):
        steps = (0 if state is None else state) + x.shape[1]
        self.seen.append((tuple(x.shape), steps))
        return self.still.expand(*x.shape[:2], *self.shape), steps


def test_bad_arguments_are_refused_in_one_sentence():
    for keywords, said in (
        ({"horizon": 0}, "horizon is 0"),
        ({"season": 0}, "season is 0"),
        ({"held_out": 0.0}, "held_out is 0"),
        ({"quantiles": [0.9, 0.1]}, "must lie between 0 and 1 and rise"),
        ({"quantiles": [0.1, 1.0]}, "must lie between 0 and 1 and rise"),
        ({"quantiles": []}, "must lie between 0 and 1 and rise"),
        ({"horizons": 3}, r"no keyword 'horizons' \(did you mean horizon\?\)"),
    ):
        with pytest.raises(SourceError, match=said):
            open_source(PASSENGERS, **keywords)
    task = Series(PASSENGERS, horizon=72)
    with pytest.raises(SourceError, match="longest series has 144 rows, and a horizon of 72 takes at least 145"):
        task.batch("train", 0, 1, 8, 0)


@settings(max_examples=40, deadline=None)
@given(
    index=st.integers(0, 10**6),
    size=st.integers(1, 6),
    length=st.integers(1, 200),
    seed=st.integers(0, 2**40),
    carried=st.booleans(),
    split=st.sampled_from(["train", "test"]),
)
def test_a_batch_is_a_function_of_its_number_and_is_well_formed(index, size, length, seed, carried, split):
    task = Series(PASSENGERS, horizon=6)
    task.batch("train", 1, 1, 5, 0)
    batch, again = (t.batch(split, index, size, length, seed, carried) for t in (task, Series(PASSENGERS, horizon=6)))
    for a, b in zip(batch, again, strict=True):
        assert a is b is None or torch.equal(a, b)
    assert batch.inputs.shape == (size, length, 1) and batch.targets.shape == (size, length, 6)
    assert batch.inputs.dtype == batch.targets.dtype == torch.float32
    assert torch.isfinite(batch.inputs).all() and torch.isfinite(batch.targets).all()
    if batch.valid is not None:
        assert not (batch.scored & ~batch.valid).any() and batch.valid[:, 0].all()
        assert not (batch.valid[:, 1:] & ~batch.valid[:, :-1]).any()
    if not carried:
        assert batch.reset is None and batch.scored.any(1).all()
    if split == "test" and not carried:
        assert (batch.scored.sum(1) == 1).all()


def where(task, values):
    """The positions in the file of scaled values, which are all different."""
    y = torch.from_numpy(task.histories[0].y / task.scales[0]).float()
    return (values[..., None] == y).int().argmax(-1)


@pytest.fixture
def rising(tmp_path):
    """A series whose values are all different: its cut for testing is at 80."""
    random = np.random.default_rng(2)
    return write(tmp_path, "ds,y\n" + "".join(f"{t},{v}\n" for t, v in enumerate(100 + 50 * random.random(100))))


@pytest.mark.parametrize("carried", [False, True])
def test_targets_are_what_follows_and_sides_are_apart(rising, carried):
    task = Series(rising, horizon=5)
    scale = np.abs(task.histories[0].y[:80]).mean()
    assert task.scales[0] == scale
    y = torch.from_numpy(task.histories[0].y / scale).float()
    tested = set()
    for split in ("train", "test"):
        for index in range(8):
            batch = task.batch(split, index, 3, 24, 0, carried)
            at = where(task, batch.inputs[..., 0])[batch.scored]
            torch.testing.assert_close(batch.targets[batch.scored], y[at[:, None] + torch.arange(1, 6)] - y[at, None])
            if split == "train":
                assert (at + 5 < 80).all()
            else:
                assert (at >= 79).all()
                tested |= set(at.tolist())
    # every time with a whole horizon after it
    assert tested == set(range(79, 95))


def test_a_test_window_ends_where_it_is_scored(rising):
    task = Series(rising, horizon=5)
    batch = task.batch("test", 0, 16, 24, 0)
    assert batch.valid is None and batch.scored[:, -1].all()
    at = where(task, batch.inputs[..., 0])
    assert (at.diff(dim=1) == 1).all() and len(set(at[:, -1].tolist())) == 16
    long = task.batch("test", 0, 16, 500, 0)
    assert (where(task, long.inputs[..., 0])[:, 0] == 0).all()
    assert torch.equal(long.scored.int().argmax(1), at[:, -1])


def test_carried_rows_continue_and_begin_anew_at_each_series(three):
    task = Series(three, horizon=4)
    for split, lengths in (("train", [48, 20, 72]), ("test", [60, 25, 90])):
        order = [h.unique_id for h in task.histories]
        lengths = [dict(zip(("s0", "s1", "s2"), lengths, strict=True))[name] for name in order]
        whole = np.concatenate(
            [h.y[:n] / s for h, n, s in zip(task.histories, lengths, task.scales, strict=True)]
        ).astype(np.float32)
        batches = [task.batch(split, i, 2, 9, 3, carried=True) for i in range(40)]
        inputs = torch.cat([b.inputs[..., 0] for b in batches], 1).numpy()
        none = torch.zeros(2, 9, dtype=torch.bool)
        resets = torch.cat([none if b.reset is None else b.reset for b in batches], 1).numpy()
        for row, reset in zip(inputs, resets, strict=True):
            first = next(i for i in range(len(whole)) if (np.roll(whole, -i)[:30] == row[:30]).all())
            assert (row == np.resize(np.roll(whole, -first), len(row))).all()
            positions = (first + np.arange(len(row))) % len(whole)
            assert (reset == np.isin(positions, np.cumsum([0, *lengths[:2]]))).all()
        scored = torch.cat([b.scored for b in batches], 1)
        expected = {"train": sum(n - 4 for n in lengths), "test": 12 - 4 + 1 + 5 - 4 + 1 + 18 - 4 + 1}[split]
        # 360 steps of two rows go round a whole number of times and a part
        assert abs(int(scored.sum()) / 720 - expected / len(whole)) < 0.07


def test_uncarried_windows_stay_in_one_series_and_reach_all(three):
    task = Series(three, horizon=4)
    batch = task.batch("train", 0, 400, 30, 0)
    assert batch.reset is None and batch.valid is not None
    sizes = batch.valid.sum(1)
    # twenty rows for training are fewer than thirty steps
    assert set(sizes.tolist()) == {20, 30}
    assert (batch.scored.sum(1) >= 16).all()


def test_chance_is_the_naive_forecast_scored_like_any_other(three):
    for keywords in ({"horizon": 4}, {"horizon": 3, "quantiles": [0.2, 0.9]}):
        task = Series(three, **keywords)
        count = int(task.streams["test"].counts.sum())
        batch = task.batch("test", 0, count, 40, 0)
        nothing = torch.zeros(count, 40, task.horizon, len(task.quantiles))
        total, number = task.score(nothing, batch)
        assert number == count
        assert total / number == pytest.approx(task.chance, rel=1e-5)


def test_a_season_is_a_better_guess():
    last, season = Series(PASSENGERS, horizon=12), Series(PASSENGERS, horizon=12, season=12)
    y = season.histories[0].y / season.scales[0]
    cut = 144 - round(0.2 * 144)
    errors = [y[o + h] - y[o + h - 12] for o in range(cut - 1, 144 - 12) for h in range(1, 13)]
    assert season.chance == pytest.approx(np.abs(errors).mean())
    assert season.chance < last.chance


def test_the_loss_is_the_quantile_loss(rising):
    task = Series(rising, horizon=2, quantiles=[0.1, 0.5])
    batch = task.batch("test", 0, 3, 10, 0)
    outputs = torch.randn(3, 10, 2, 2)
    total, count = task.score(outputs.bfloat16().requires_grad_(), batch)
    total, count = task.score(outputs, batch)
    by_hand = []
    for row in range(3):
        for h in range(2):
            for q, quantile in enumerate((0.1, 0.5)):
                e = float(batch.targets[row, -1, h] - outputs[row, -1, h, q])
                by_hand.append(2 * (quantile * e if e > 0 else (quantile - 1) * e))
    assert count == 3 and total / count == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert float(task.loss(outputs, batch)) == pytest.approx(total / count, rel=1e-6)
    # the best constant is the quantile of what comes
    constants = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    outcomes = torch.randn(4000, dtype=torch.float64).clamp(-1, 1)
    loss = 2 * torch.maximum(0.1 * (outcomes[:, None] - constants), -0.9 * (outcomes[:, None] - constants)).mean(0)
    assert constants[loss.argmin()] == pytest.approx(float(outcomes.quantile(0.1)), abs=0.01)


def test_a_loss_of_nothing_is_zero(rising):
    task = Series(rising, horizon=2)
    batch = task.batch("train", 0, 1, 3, 0)
    batch = batch._replace(scored=torch.zeros_like(batch.scored))
    assert task.loss(torch.zeros(1, 3, 2, 5), batch) == 0
    assert task.score(torch.zeros(1, 3, 2, 5), batch) == (0.0, 0.0)


def test_a_forecast_goes_on_from_the_last_value_in_the_files_units(three):
    task = Series(three, horizon=4)
    rows = task.forecast(Naive(4, 5))
    assert [row["unique_id"] for row in rows] == [h.unique_id for h in task.histories for _ in range(4)]
    assert list(rows[0]) == ["unique_id", "ds", "q0.1", "q0.25", "q0.5", "q0.75", "q0.9"]
    for history in task.histories:
        mine = [row for row in rows if row["unique_id"] == history.unique_id]
        assert [row["ds"] for row in mine] == [len(history.y) + i for i in range(4)]
        for row in mine:
            assert all(row[f"q{q}"] == pytest.approx(history.y[-1]) for q in (0.1, 0.5, 0.9))
    assert len(task.forecast(Naive(4, 5), 2)) == 6
    with pytest.raises(ValueError, match="5 steps cannot be forecast: this model was trained for 1 to 4"):
        task.forecast(Naive(4, 5), 5)


def test_a_long_history_is_given_in_pieces(tmp_path):
    path = write(tmp_path, "ds,a,b\n" + "".join(f"{t},{t % 7},{t % 5}\n" for t in range(10000)))
    model = Naive(24, 5)
    Series(path).forecast(model)
    assert model.seen == [((2, 4096, 1), 4096), ((2, 4096, 1), 8192), ((2, 1808, 1), 10000)]


def test_quantiles_never_cross(tmp_path):
    class Backwards(Naive):
        def forward(self, x, state=None):
            return torch.tensor([0.3, 0.1, 0.2]).expand(*x.shape[:2], 4, 3), None

    rows = Series(PASSENGERS, horizon=4, quantiles=[0.1, 0.5, 0.9]).forecast(Backwards(4, 3))
    assert all(row["q0.1"] < row["q0.5"] < row["q0.9"] for row in rows)
    assert [row["ds"] for row in rows] == ["1961-01-01", "1961-02-01", "1961-03-01", "1961-04-01"]


def test_a_short_file_can_be_forecast_from(tmp_path):
    config = {**Series(PASSENGERS).config, "source": write(tmp_path, "ds,a,b\n1,0,5\n2,0,6\n")}
    rows = make(config).forecast(Naive(24, 5))
    assert len(rows) == 48 and rows[0]["q0.5"] == 0 and rows[-1]["q0.5"] == 6


def test_the_configuration_makes_the_task_again(monkeypatch):
    monkeypatch.chdir(pathlib.Path(PASSENGERS).parent)
    task = open_source("air_passengers.csv", horizon=6, quantiles=[0.5])
    assert task.config["source"] == PASSENGERS and task.config["quantiles"] == [0.5]
    assert task.model_arguments() == {"inputs": 1, "horizon": 6, "quantiles": [0.5]}
    again = make(task.config)
    assert again.config == task.config and again.chance == task.chance


def test_quantiles_are_told_as_they_were_given():
    assert open_source(PASSENGERS).model_arguments()["quantiles"] == [0.1, 0.25, 0.5, 0.75, 0.9]


def test_a_real_forecaster_forecasts_the_same_in_pieces(three, monkeypatch):
    task = Series(three, horizon=3)
    model = MODELS["forecaster"](**task.model_arguments(), width=16, depth=1, pattern="gru")
    whole = task.forecast(model)
    monkeypatch.setattr("recurra.tasks.series.PIECE", 7)
    for one, other in zip(whole, task.forecast(model), strict=True):
        assert (one["unique_id"], one["ds"]) == (other["unique_id"], other["ds"])
        assert list(one.values())[2:] == pytest.approx(list(other.values())[2:], rel=1e-4)
    batch = task.batch("train", 0, 2, 30, 0)
    outputs, _ = model(batch.inputs)
    assert outputs.shape == (2, 30, 3, 5) and torch.isfinite(task.loss(outputs, batch))
