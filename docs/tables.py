"""Write the README's generated blocks anew: tables of the program, recipes' pages, numbers from benchmarks/results.

python docs/tables.py           write them
python docs/tables.py --check   exit with 1 if the README's tables and recipes are not what they would be
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
COUNTED = RESULTS / "operations.json"


def architectures() -> str:
    """Every row of MIXERS: what it is, since when, how large its state is."""
    from recurra.catalogue import WIDTH, catalogue

    rows = catalogue()
    lines = [f"| name | what it is | year | engine | state at width {WIDTH} |", "|---|---|--:|---|--:|"]
    for row in rows:
        size = f"{row.state_bytes:,} B" + (f" + {row.growth:,} B a step" if row.growth else "")
        lines.append(f"| `{row.name}` | {row.summary} | {row.year or ''} | {row.family} | {size} |")
    years = sorted(row.year for row in rows if row.year)
    return folded(f"{len(rows)} architectures, {years[0]} to {years[-1]}", lines)


def models() -> str:
    """Every row of MODELS and what it is."""
    from recurra.models import MODELS

    summaries = {name: (cls.__doc__ or "").strip().splitlines()[0] for name, cls in MODELS.items()}
    return "\n".join(["| name | what it is |", "|---|---|", *(f"| `{x}` | {y} |" for x, y in summaries.items())])


def recipes() -> str:
    """The pages of what was tried, by their titles."""
    pages = sorted((ROOT / "recipes").glob("*.md"))
    titles = [(page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "), page.name) for page in pages]
    return ",\n".join(f"[{title}](recipes/{name})" for title, name in titles) + "."


def demo() -> str:
    """The demo's table, as its last stored run had it."""
    stored = json.loads((RESULTS / "demo.json").read_text())
    lines = ["| model | held-out bits per byte | parameters | state | training tokens/s | step, µs |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for row in stored["rows"]:
        lines.append(
            f"| `{row['mixer']}` | {row['score_mean']:.3f} | {row['parameters']:,} | {row['state_bytes']:,} B "
            f"| {row['tokens_per_second']:,.0f} | {row['step_microseconds']:,.0f} |"
        )
    said = ", ".join(f"{name} {value:.2f}" for name, value in stored["reference"].items())
    return "\n".join([*lines, "", f"The corpus's own lines, in bits per byte: {said}. {stored['machine']}."])


def folded(title: str, lines: list[str]) -> str:
    """A long table that opens when it is asked for."""
    return "\n".join(["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"])


def bench() -> str:
    """Every mixer beside torch's LSTM and the same layer elsewhere, as `make bench` last stored it."""
    stored = json.loads((RESULTS / "bench.json").read_text())
    machine = stored["machine"]
    missing = [x for x, version in stored["peers"].items() if version is None]
    return "\n".join([
        *_elsewhere(stored["mixers"]), "", folded("All of them, at four sizes", _all(stored["mixers"])), "",
        "Float32, forward and backward unless it says otherwise, B 8, T 512, D 128 unless it says otherwise (T 16,384: "
        "B 1); a step is of one row, without gradients. × is how many times longer the other takes, in turns in one "
        "run: the median and, in brackets, its quartiles where there were rounds enough. Peak: by how much a training "
        "run raises the memory of a process of its own. Operations: what the definition computes for a step, in the "
        "LSTM's (`python -m benchmarks.operations`). T 65,536: the cost of a token of a forward, as a multiple of that "
        f"at T 1,024. {machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"{machine['compiler']}, {stored['date']}.",
        *(["", f"Not installed, so not beside: {', '.join(missing)}."] if missing else []),
    ])  # fmt: skip


def _elsewhere(mixers: dict) -> list[str]:
    """The layers that others have too: their training time over ours."""
    lines = []
    for name, entry in mixers.items():
        small = entry.get("sizes", {}).get("small", {})
        if others := _others(small):
            lines.append(f"| `{name}` | {_seconds(small, 'train', 1e3)} | {others} |")
    return ["| layer | ours, ms | the same layer elsewhere takes |", "|---|--:|---|", *lines] if lines else []


def _all(mixers: dict) -> list[str]:
    """Every mixer beside torch's LSTM."""
    counted = json.loads(COUNTED.read_text())["mixers"]
    lines = [
        "| mixer | operations | training, ms | × LSTM | × LSTM, D 256 | × LSTM, T 16,384 | forward × LSTM | step, µs "
        "| × LSTM | peak, MiB | T 65,536 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, entry in mixers.items():
        operations = f"{counted[name]['total'] / counted['lstm']['total']:.2g}" if name in counted else ""
        lines.append(f"| `{name}` | " + " | ".join([operations, *_bench_row(entry)]) + " |")
    return lines


def _others(small: dict) -> str:
    """How many times longer the same layer takes elsewhere, or why there is no number."""
    labels = dict.fromkeys([*small.get("train", {}).get("ratio", {}), *small.get("refused", {})])
    others = [x for x in labels if x not in ("nn.LSTM", "recurra")]
    said = {x: _ratio(small, "train", x) for x in others}
    return "; ".join(f"{x} × {ratio}" if ratio else f"{x} {small['refused'][x]}" for x, ratio in said.items())


def _bench_row(entry: dict) -> list[str]:
    """The cells of a mixer after its name."""
    if "red" in entry:
        return [f"red: {entry['red']}", *[""] * 8]
    sizes = entry["sizes"]
    small = sizes.get("small", {})
    cost = entry.get("growth", {}).get("ratio", {}).get("65536")
    peak = small.get("peak", {}).get("recurra")
    return [
        _seconds(small, "train", 1e3) or small.get("refused", {}).get("recurra", ""),
        *(_ratio(sizes.get(x, {}), "train") for x in ("small", "medium", "long")),
        _ratio(small, "forward"),
        _seconds(small, "step", 1e6),
        _ratio(small, "step"),
        "" if peak is None else f"{peak / 2**20:.0f}",
        "" if cost is None else f"{cost['median']:.2f}",
    ]


def _seconds(row: dict, part: str, unit: float) -> str:
    if part not in row:
        return ""
    value = unit * row[part]["seconds"]["recurra"]["median"]
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _ratio(row: dict, part: str, label: str = "nn.LSTM") -> str:
    known = row.get(part, {}).get("ratio", {}).get(label)
    if known is None:
        return ""
    spread = f" ({known['low']:.3g}–{known['high']:.3g})" if known["low"] < known["high"] else ""
    return f"{known['median']:.3g}{spread}"


BLOCKS = {"architectures": architectures, "models": models, "recipes": recipes, "demo": demo, "bench": bench}
# made of the program and its pages alone, so that they must be current
CHECKED = ("architectures", "models", "recipes")


def replaced(text: str, name: str, body: str) -> str:
    """The text with one block's content exchanged."""
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
    assert re.search(pattern, text, re.S), f"README.md has no block {name}"
    return re.sub(pattern, lambda found: found[1] + body + found[2], text, flags=re.S)


def main() -> int:
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(any(replaced(text, name, BLOCKS[name]()) != text for name in CHECKED))
    for name, make in BLOCKS.items():
        text = replaced(text, name, make())
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
