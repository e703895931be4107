"""report.html: one page that needs nothing else, made from the files of a run or of a comparison and from nothing else.

The plots' library is inside the page, so that it opens without a network in ten years; the page's own policy forbids
it to fetch anything. Everything that comes from a file or a model is escaped.
"""

import html
import json
import math
import os
import pathlib
import string
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from plotly.offline import get_plotlyjs

from recurra.files import aside
from recurra.train import metrics
from recurra.train.contender import contender
from recurra.train.errors import RunError
from recurra.train.table import cells, headings

POINTS = 400  # of a curve; more cannot be told apart on a screen
SMOOTHING = 0.05  # of the loss: what a new step weighs

Point = tuple[float | int, float | int]


class Run(NamedTuple):
    """What the files of one run say."""

    group: str  # the contender's name: runs of one group differ in their seed
    config: dict[str, Any]
    result: dict[str, Any] | None  # None: it has not ended
    lines: list[dict[str, Any]]


def report(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Write report.html into the folder of a run or a comparison.

    Returns:
        The page's path.

    Raises:
        RunError: the folder holds neither, or its files are damaged.
    """
    folder = pathlib.Path(folder)
    if (folder / "compare.json").exists():
        runs = [_run(x.parent) for x in sorted(folder.glob("*/config.json"))]
        rows = _json(folder / "table.json") if (folder / "table.json").exists() else []
    elif (folder / "config.json").exists():
        runs, rows = [_run(folder)], []
    else:
        raise RunError(f"{folder} holds no run and no comparison: give a folder that recurra train or compare wrote")
    references = _json(folder / "reference.json") if (folder / "reference.json").exists() else {}
    figures = [x for x in _figures(runs, rows, references) if x["series"]]
    sections = [_table(rows), _result(runs) if not rows else "", _plots(figures), _samples(runs, rows)]
    page = string.Template(pathlib.Path(__file__).with_name("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(_title(folder, runs)),
        subtitle=html.escape(_subtitle(runs)),
        body="\n".join(x for x in sections if x),
        plotly=get_plotlyjs(),
        # inside a script element only "<" could end it
        figures=json.dumps(figures, allow_nan=False).replace("<", "\\u003c"),
    )
    with aside(folder / "report.html") as fresh:
        fresh.write_text(page, encoding="utf-8")
    return folder / "report.html"


def _run(folder: pathlib.Path) -> Run:
    result = _json(folder / "result.json") if (folder / "result.json").exists() else None
    config = _json(folder / "config.json")
    return Run(contender(config).name, config, result, metrics.read(folder))


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not JSON") from error


def _title(folder: pathlib.Path, runs: Sequence[Run]) -> str:
    source = next((str(run.config["training"]["source"]) for run in runs), "")
    names = list(dict.fromkeys(run.group for run in runs))
    what = " against ".join(names) if 0 < len(names) <= 4 else folder.name
    return f"{what} on {source}" if source else what


def _subtitle(runs: Sequence[Run]) -> str:
    ended = sum(run.result is not None for run in runs)
    seeds = len({run.config["training"]["seed"] for run in runs})
    # a stream's last step is not known before
    steps = max((run.lines[-1]["step"] if run.lines else 0 for run in runs), default=0)
    runs_ = f"{ended} of {len(runs)} runs ended" if len(runs) > 1 else "ended" if ended else "not ended yet"
    return f"{runs_}, {steps:,} steps, {seeds} seed{'s' if seeds != 1 else ''}"


def _figures(runs: Sequence[Run], rows: Sequence[dict], references: dict[str, float]) -> Iterator[dict[str, Any]]:
    """What is drawn, as data; the page decides how it looks."""
    measure = next((x["measure"] for run in runs for x in run.lines if "held_out" in x), "score")
    levels = [{"name": html.escape(name), "y": y} for name, y in references.items()]
    # what counting reaches says more than chance does
    chance = None if levels else next((run.result["chance"] for run in runs if run.result), None)
    levels += [] if chance is None else [{"name": "chance", "y": chance}]
    for x, unit in (("tokens", "training tokens"), ("seconds", "seconds of training")):
        series = _series(runs, x, "held_out", "lines+markers")
        yield _figure(f"Held-out {measure} against {x}", unit, measure, series, levels)
    # numbers are not surprising, they are off
    loss = "loss" if any(run.config["model"].get("name") == "forecaster" for run in runs) else "loss, nats"
    for x, unit in (("tokens", "training tokens"), ("seconds", "seconds of training")):
        yield _figure(f"Training loss against {x}", unit, loss, _series(runs, x, "loss", "lines"))
    memory = f"Held-out {measure} against the rule's memory"
    yield _figure(memory, "bytes kept for credit", measure, _memory(runs), levels, log=True)
    series = [
        {
            "name": html.escape(row["mixer"]), "group": i, "first": True, "mode": "markers",
            "x": [row["state_bytes"]], "y": [row["tokens_per_second"]],
        }
        for i, row in enumerate(sorted(rows, key=lambda row: _order(runs).index(row["mixer"])))
        if row["state_bytes"] > 0
    ]  # fmt: skip
    # of one size, as where rules are compared, it would say nothing
    series = series if len({x["x"][0] for x in series}) > 1 or len(series) == 1 else []
    speed = "Speed against state size", "state bytes of a sequence", "training tokens/s"
    yield _figure(*speed, series, log=True, from_zero=True)


def _order(runs: Sequence[Run]) -> list[str]:
    """Groups in a fixed order: each keeps its colour in every plot."""
    return list(dict.fromkeys(run.group for run in runs))


def _figure(
    title: str,
    x: str,
    y: str,
    series: list[dict],
    lines: list[dict] | None = None,
    log: bool = False,
    from_zero: bool = False,
) -> dict[str, Any]:
    own = {"title": title, "x": x, "y": y, "log": log, "fromZero": from_zero}
    return {**own, "series": series, "lines": lines or []}


def _series(runs: Sequence[Run], x: str, y: str, mode: str) -> list[dict[str, Any]]:
    found, seen = [], set()
    for run in runs:
        points = [(line[x], line[y]) for line in run.lines if y in line]
        if not points:
            continue
        xs, ys = zip(*_thin(_smooth(points) if y == "loss" else points), strict=True)
        first = run.group not in seen
        seen.add(run.group)
        found.append({
            "name": html.escape(run.group), "group": _order(runs).index(run.group), "first": first, "mode": mode,
            # rules that are equal for a cell draw one curve twice: both are seen where they are broken differently
            "dashed": _rules(runs), "x": [_short(v) for v in xs],
            "y": [_short(v) for v in ys],
        })  # fmt: skip
    return found


def _memory(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run as a point, where any learns by another rule than backpropagation: what it keeps, what it reached."""
    if not _rules(runs):
        return []
    found = []
    for run in runs:
        kept = next((line["memory_bytes"] for line in run.lines if line.get("memory_bytes")), None)
        scores = [line["held_out"] for line in run.lines if "held_out" in line]
        if kept and scores:
            own = {"name": html.escape(run.group), "group": _order(runs).index(run.group), "mode": "markers"}
            first = all(x["group"] != own["group"] for x in found)
            found.append({**own, "first": first, "x": [kept], "y": [_short(scores[-1])]})
    return found


def _rules(runs: Sequence[Run]) -> bool:
    """Whether any learns by another rule than backpropagation."""
    return any(run.config["training"].get("rule", "bptt") != "bptt" for run in runs)


def _smooth(points: list[Point]) -> list[Point]:
    """A running mean that forgets, started without bias."""
    total, weight, smooth = 0.0, 0.0, []
    for x, y in points:
        total, weight = total + SMOOTHING * (y - total), weight + SMOOTHING * (1 - weight)
        smooth.append((x, total / weight))
    return smooth


def _thin(points: list[Point]) -> list[Point]:
    stride = math.ceil(len(points) / POINTS)
    return [*points[:-1:stride], points[-1]]


def _short(x: float | int) -> float:
    return float(f"{x:.5g}")


def _plots(figures: Sequence[dict[str, Any]]) -> str:
    cards = "".join(
        f'<div class="card"><h3 id="title{i}">{html.escape(x["title"])}</h3>'
        f'<div class="plot" id="plot{i}" role="img" aria-labelledby="title{i}"></div></div>'
        for i, x in enumerate(figures)
    )
    return f'<h2>Curves</h2>\n<div class="grid">{cards}</div>' if cards else "<p>Nothing was measured yet.</p>"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(x)}</th>" for x in headings(rows))
    body = "".join(
        f"<tr{' class=best' if i == 0 else ''}>" + "".join(f"<td>{html.escape(x)}</td>" for x in cells(row)) + "</tr>"
        for i, row in enumerate(rows)
    )
    note = "Best first; lower is better." if rows[0]["lower_is_better"] else "Best first; higher is better."
    return (
        f"<h2>Table</h2>\n<p>{note}</p>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _result(runs: Sequence[Run]) -> str:
    """The numbers of a single run that has ended."""
    result = next((run.result for run in runs), None)
    if result is None:
        return ""
    shown = {key: value for key, value in result.items() if key not in ("prompt", "sample")}
    # said of sparse runs only
    shown = {key: value for key, value in shown.items() if key != "density" or value is not None}
    items = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(_said(v))}</dd>" for k, v in shown.items())
    return f'<h2>Result</h2>\n<div class="card"><dl>{items}</dl></div>'


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else str(value)


def _samples(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    """What each went on to write; of several seeds the first."""
    first: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.result is not None and run.result["sample"] is not None:
            first.setdefault(run.group, run.result)
    order = [row["mixer"] for row in rows if row["mixer"] in first] or list(first)
    cards = "".join(
        f'<div class="card"><h3>{html.escape(name)}</h3>'
        f'<pre><span class="prompt">{html.escape(first[name]["prompt"])}</span>'
        f"{html.escape(first[name]['sample'])}</pre></div>"
        for name in order
    )
    note = "<p>The grey text was given; the rest was drawn from the model.</p>"
    return f'<h2>Samples</h2>\n{note}\n<div class="grid">{cards}</div>' if cards else ""
