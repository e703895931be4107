"""Tables: files read right or refused in a sentence, and times that go on as they went."""

import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tasks.test_series import three as three, write

from recurra.tasks import SourceError, open_source
from recurra.tasks.tables import future, read, written


def test_long_and_wide_csv_and_parquet_are_the_same(tmp_path, three):
    histories = read(three)
    assert [(h.unique_id, len(h.y)) for h in sorted(histories)] == [("s0", 60), ("s1", 25), ("s2", 90)]
    assert all((h.ds == np.arange(len(h.y))).all() and h.ds.dtype == np.int64 for h in histories)
    columns = {
        "unique_id": [h.unique_id for h in histories for _ in h.y],
        "ds": np.concatenate([h.ds for h in histories]),
        "y": np.concatenate([h.y for h in histories]),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    for one, other in zip(histories, read(str(tmp_path / "t.parquet")), strict=True):
        assert one.unique_id == other.unique_id and (one.ds == other.ds).all() and (one.y == other.y).all()
    a, b = (h.y[:25] for h in histories[:2])
    wide = "time;a;b\n" + "".join(f"{t};{x};{y}\n" for t, (x, y) in enumerate(zip(a, b, strict=True)))
    for one, y in zip(read(write(tmp_path, wide, "wide.csv")), (a, b), strict=True):
        assert (one.y == y).all()


@pytest.mark.parametrize(
    ("times", "kind", "first"),
    [
        (["3", "1", "2"], "int64", "1"),
        (["0.5", "1.5", "0.25"], "float64", "0.25"),
        (["2026-01-03", "2026-01-01", "2026-01-02"], "datetime64[D]", "2026-01-01"),
        (["2026-03", "2026-01", "2026-02"], "datetime64[D]", "2026-01-01"),
        (["2026-01-01 12:00", "2026-01-01 10:00", "2026-01-01 11:00"], "datetime64[s]", "2026-01-01T10:00:00"),
        (["2026-01-01T12:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"], "datetime64[s]", "2026-01-01T10:00"),
        (["2026-01-01T00:00:00.5", "2026-01-01", "2026-01-02"], "datetime64[ms]", "2026-01-01T00:00:00.000"),
    ],
)
def test_times_are_known_and_sorted(tmp_path, times, kind, first):
    (history,) = read(write(tmp_path, "when,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(times))))
    assert history.ds.dtype == kind and history.ds[0] == np.array(first, history.ds.dtype)
    assert (history.y == np.argsort(np.array(times, "U"), kind="stable")).all()


def test_parquet_keeps_dates_and_timestamps(tmp_path):
    days = np.arange("2026-01-01", "2026-01-09", dtype="M8[D]")
    for values in (pyarrow.array(days), pyarrow.array(days.astype("M8[ns]"))):
        table = pyarrow.table({"ds": values, "y": pyarrow.array(range(8))})
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
        (history,) = read(str(tmp_path / "t.parquet"))
        assert history.ds.dtype == "M8[D]" and (history.ds == days).all() and (history.y == np.arange(8)).all()


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (np.array([1, 2, 3]), [4, 5]),
        (np.array([0.5, 1.0, 1.5]), [2.0, 2.5]),
        # a gap does not change the step
        (np.array([1, 2, 3, 9, 10]), [11, 12]),
        (np.array(["2024-02-27", "2024-02-28"], "M8[D]"), ["2024-02-29", "2024-03-01"]),
        (np.array(["2023-11-01", "2023-12-01"], "M8[D]"), ["2024-01-01", "2024-02-01"]),
        (np.array(["2023-11-30", "2023-12-31"], "M8[D]"), ["2024-01-31", "2024-02-29"]),
        (np.array(["2023-10-15", "2023-11-15", "2024-01-15"], "M8[D]"), ["2024-02-15", "2024-03-15"]),
        (np.array(["2023-10-30", "2023-11-30", "2023-12-30", "2024-01-30"], "M8[D]"), ["2024-02-29", "2024-03-30"]),
        (np.array(["2023-07-01", "2023-10-01", "2024-01-01"], "M8[D]"), ["2024-04-01", "2024-07-01"]),
        (np.array(["2023-01-01", "2024-01-01"], "M8[D]"), ["2025-01-01", "2026-01-01"]),
        (np.array(["2024-02-01", "2024-02-08", "2024-02-15"], "M8[D]"), ["2024-02-22", "2024-02-29"]),
        (np.array(["2024-02-28T22", "2024-02-28T23"], "M8[s]"), ["2024-02-29T00:00:00", "2024-02-29T01:00:00"]),
    ],
)
def test_time_goes_on_as_it_went(ds, expected):
    assert written(future(ds, 2)) == expected


BAD = {
    "y,ds\n1,2\n,3\n": "no value in column y, row 2|no value in column ds",
    "unique_id,ds,y\na,1,2\na,2,nan\n": "no value in column y, row 2: fill it or leave the row out",
    "ds,load\n1,2\n2,NaN\n": "no value in column load, row 2",
    "ds,load\n1,2\n2,\n": "no value in column load, row 2",
    "ds,load\n1,2\n2,many\n": "'many' in column load, row 2: that is not a number",
    "ds,load\n1,2\n2,inf\n": "'inf' in column load, row 2: that is not a number",
    "ds,load\n1,2\n": "one row only",
    "ds,load\n": "no rows",
    "\n\n": "is not a CSV file",
    "unique_id,ds,y\na,1,2\nb,1,2\nb,2,2\n": "one row only of the series a",
    "unique_id,ds,value\na,1,2\na,2,2\n": "a column unique_id but no column y",
    "unique_id,when,y\na,1,2\na,2,2\n": "a column unique_id but no column ds",
    "unique_id,ds,y,price\na,1,2,3\na,2,2,3\n": "a column price that no model here would use",
    "unique_id,ds,y\na,1,2\n,2,2\n": "no unique_id in row 2",
    "y\n1\n2\n": "has one column only",
    "ds,y\n1,2\n1,3\n": "the time 1 twice in the series y",
    "ds,y\n1,2\n2\n": "2 columns but another number of values in row 2",
    "ds,y,y\n1,2,3\n2,3,4\n": "two columns 'y'",
    "1,2\n2,3\n3,4\n": "begins with 1, which names no column",
    "2026-01-01,2\n2026-01-02,3\n": "begins with 2026-01-01",
    "ds,y\n01/31/2026,2\n02/01/2026,3\n": "'01/31/2026' in column ds, row 1: that is not a time",
    "ds,y\n2026-01-01,2\nsoon,3\n": "'soon' in column ds, row 2: that is not a time",
    "ds,y\n2026-01-01,2\n,3\n": "no value in column ds, row 2",
    "ds,y\n2026-01-01T00:00+02:00,2\n2026-01-02T00:00+02:00,3\n": "in column ds, row 1: that is not a time",
    "ds,y\n1,2\ntwo,3\n": "'two' in column ds, row 2: that is not a number",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, text):
    with pytest.raises(SourceError, match=BAD[text]) as caught:
        open_source(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused_in_one_sentence(tmp_path, monkeypatch):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(SourceError, match=f"{name} does not exist"):
            open_source(tmp_path / name)
    with pytest.raises(SourceError, match="is empty"):
        open_source(write(tmp_path, ""))
    (tmp_path / "b.csv").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(SourceError, match="is not a CSV file in UTF-8"):
        open_source(tmp_path / "b.csv")
    (tmp_path / "b.parquet").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(SourceError, match="is not a whole Parquet file"):
        open_source(tmp_path / "b.parquet")
    table = pyarrow.table({"ds": [1, 2, 3], "y": [1.0, None, 3.0]})
    pyarrow.parquet.write_table(table, tmp_path / "n.parquet")
    with pytest.raises(SourceError, match="no value in column y, row 2"):
        open_source(tmp_path / "n.parquet")
    table = pyarrow.table({"unique_id": ["a", None], "ds": [1, 2], "y": [1.0, 3.0]})
    pyarrow.parquet.write_table(table, tmp_path / "n.parquet")
    with pytest.raises(SourceError, match="no unique_id in row 2"):
        open_source(tmp_path / "n.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SourceError, match=r"pip install 'recurra\[forecast\]'"):
        open_source(tmp_path / "n.parquet")
