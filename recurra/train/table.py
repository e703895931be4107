"""The table of a comparison: the same cells in a terminal and on a page, and which of its runs is the best."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from recurra.train.errors import RunError

Row = dict[str, Any]


def headings(rows: Sequence[Row]) -> list[str]:
    """What the columns are."""
    measure = next((row["measure"] for row in rows), "score")
    columns = ("parameters", "state bytes", "training tokens/s", "step µs", "seconds")
    return ["mixer", f"held-out {measure}", *columns]


def cells(row: Row) -> list[str]:
    """One row as text. A spread is shown where there are several seeds, a plus where the state grows."""
    spread = f" ± {row['score_spread']:.3f}" if len(row["scores"]) > 1 else ""
    return [
        row["mixer"],
        f"{row['score_mean']:.3f}{spread}",
        f"{row['parameters']:,}",
        f"{row['state_bytes']:,}{' + each step' if row['grows'] else ''}",
        f"{row['tokens_per_second']:,.0f}",
        "-" if row["step_microseconds"] is None else f"{row['step_microseconds']:,.0f}",
        f"{row['seconds']:,.0f}",
    ]


def table(rows: Sequence[Row]) -> Table:
    """For a terminal, the best (the first) in bold."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for i, heading in enumerate(headings(rows)):
        shown.add_column(heading, justify="right" if i else "left", no_wrap=i == 0)
    for i, row in enumerate(rows):
        shown.add_row(*cells(row), style="bold" if i == 0 else "")
    return shown


def best_run(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a comparison's best run; any other folder is itself.

    Raises:
        RunError: no run of the comparison has ended.
    """
    if not (folder / "compare.json").exists():
        return folder
    path = folder / "table.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if not rows:
        raise RunError(f"no run of the comparison in {folder} has ended: resume it")
    return folder / rows[0]["run"]
