"""Write the README's generated blocks anew: architectures from the table MIXERS, numbers from benchmarks/results.

python docs/tables.py           write them
python docs/tables.py --check   exit with 1 if the README's list of architectures is not what it would be
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def architectures() -> str:
    """Every row of MIXERS: what it is, since when, how large its state is."""
    from recurra.catalogue import WIDTH, catalogue

    lines = [f"| name | what it is | year | engine | state at width {WIDTH} |", "|---|---|--:|---|--:|"]
    for row in catalogue():
        size = f"{row.state_bytes:,} B" + (f" + {row.growth:,} B a step" if row.growth else "")
        lines.append(f"| `{row.name}` | {row.summary} | {row.year or ''} | {row.family} | {size} |")
    return "\n".join(lines)


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


BLOCKS = {"architectures": architectures, "demo": demo}


def replaced(text: str, name: str, body: str) -> str:
    """The text with one block's content exchanged."""
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
    assert re.search(pattern, text, re.S), f"README.md has no block {name}"
    return re.sub(pattern, lambda found: found[1] + body + found[2], text, flags=re.S)


def main() -> int:
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(replaced(text, "architectures", architectures()) != text)
    for name, make in BLOCKS.items():
        text = replaced(text, name, make())
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
