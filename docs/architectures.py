"""Write architectures.md: an entry for each row of MIXERS, from its docstring, its state and what its test compares.

python docs/architectures.py             write it, with the errors of the last measurement (errors.json)
python docs/architectures.py --measure   run the tests that compare with others' numbers first, and keep their errors

An error is the largest difference over the largest number compared, rounded up to a power of ten: it holds on machines
that round otherwise.
"""

import ast
import inspect
import json
import math
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
TESTS, ORACLES = ROOT / "tests" / "mixers", ROOT / "tests" / "oracles"
ERRORS, PAGE = ROOT / "docs" / "errors.json", ROOT / "docs" / "architectures.md"

# tests that compare with others, by name
COMPARING = "(equal and not pieces) or torchs or onnxs"
# what the rooms are good and bad at; what sets one apart in its room its own entry says
ROOMS = {
    "cell": (
        "Nonlinear recurrences",
        "Each step looks at the state before it decides, so they follow automata (parity, counters, nested structure) "
        "that no linear recurrence with positive decays can. They run step after step: training is slower the longer "
        "the sequence, gradients may fade, and the state is a vector, so exact recall of many pairs is out of reach.",
    ),
    "diag": (
        "Elementwise recurrences",
        "The cheapest scans, and the longest memories: each channel is a filter of its own, good at signals, forecasts "
        "and fading context. What a channel holds is mixed with the past and cannot be looked up by content, so recall "
        "of pairs needs more width than a matrix memory of the same bytes. MinMax alone here does not fade.",
    ),
    "block": (
        "Small systems",
        "Memories that keep the past as polynomials, or states that turn together: what was, sampled as finely as the "
        "order allows, at any rate of steps. Fixed dynamics: they do not choose by content what to keep.",
    ),
    "outer": (
        "Matrix memories",
        "A matrix of K by V numbers a head, written with a key and read with a query: recall of about K pairs a head, "
        "as fast to train as attention on short sequences and much faster on long ones. What is written only adds and "
        "fades: a pair cannot be replaced alone, and with positive decays parity stays out of reach.",
    ),
    "delta": (
        "Matrix memories that correct themselves",
        "As matrix memories, and before a value is written what its key recalls is taken away: better recall from the "
        "same bytes, and a pair can be replaced. With a strength of 2 a step may reflect, which follows parity and, "
        "with several updates a token, permutations. Training costs about twice that of a matrix memory.",
    ),
    "window": (
        "Attention",
        "Every step may look at every step kept: exact recall of whatever is in the window. The whole past costs a "
        "state that grows; a window forgets all at once what leaves it.",
    ),
    "grid": (
        "Grids and graphs",
        "Recurrence along two axes or along the edges of a graph, for images and trees; on a sequence a matrix memory.",
    ),
    "descent": (
        "Memories in training",
        "The state is the weights of a small network, which learns at every few steps what it should recall. More is "
        "kept than a matrix of the same width can hold, and what surprises is kept first. They cost several times a "
        "matrix memory's arithmetic, and a chunk's steps all see the weights at its start.",
    ),
    "segment": (
        "Segments with a memory between them",
        "Attention inside a segment, and a state of constant size that is carried from segment to segment: exact "
        "recall of what is near, a summary of the rest. What a segment writes is read from the next one on, and a "
        "single step costs as much as the open segment is long. TRC2 alone has no segments: its columns run on, beside "
        "slots of events that are written late.",
    ),
}


def room_of(name: str) -> str:
    from recurra.mixers import MIXERS

    return MIXERS[name].__module__.split(".")[2]


def test_of(name: str) -> pathlib.Path | None:
    """The test of an architecture: the file of its module's name or else one of its room that imports it."""
    from recurra.mixers import MIXERS

    module = MIXERS[name].__module__
    folder, own = TESTS / room_of(name), module.rpartition(".")[2]
    named = folder / f"test_{own}.py"
    others = (path for path in sorted(folder.glob("test_*.py")) if f"from {module} import" in path.read_text("utf-8"))
    return named if named.exists() else next(others, None)


def markdown(doc: str) -> str:
    """A docstring without its arguments, its equations as Markdown has them."""
    doc = re.split(r"\n(?:Args|Raises|Returns):\n", doc)[0].rstrip()
    doc = re.sub(r":math:`([^`]*)`", lambda found: f"${found[1]}$", doc)

    def equation(found: re.Match[str]) -> str:
        body = inspect.cleandoc(found[1]).strip()
        if r"\\" in body and r"\begin" not in body:
            body = f"\\begin{{gathered}}\n{body}\n\\end{{gathered}}"
        return f"\n```math\n{body}\n```\n\n"

    doc = re.sub(r"\n?\.\. math::((?:[^\n]*\n)(?:(?:[ ]+[^\n]*|)\n)*(?:[ ]+[^\n]*)?)", equation, doc + "\n")
    return re.sub(r"\n{3,}", "\n\n", doc).strip()


def compared(name: str, errors: dict[str, dict[str, str]]) -> str:
    """What the test of an architecture says it compares with, the packages of stored numbers, and the errors."""
    from safetensors import safe_open

    path = test_of(name)
    assert path is not None, f"{name} has no test"
    text = path.read_text("utf-8")
    said = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    lines = [f"**Checked** ([test](../{path.relative_to(ROOT)})): {said}"]
    for made in sorted(set(re.findall(r"\bmake_(\w+)\.py", text))):
        with safe_open(ORACLES / f"{made}.safetensors", "pt") as file:
            packages = dict(file.metadata())
        if packages.keys() == {"package", "version"}:
            packages = {packages["package"]: packages["version"]}
        versions = ", ".join(f"{package} {version[:12]}" for package, version in sorted(packages.items()))
        lines.append(f"Numbers stored in `{made}.safetensors` are of {versions}.")
    measured = errors.get(str(path.relative_to(ROOT)), {})
    if measured:
        lines.append("Errors: " + "; ".join(f"{what}: {error}" for what, error in measured.items()) + ".")
    return " ".join(lines)


def page(errors: dict[str, dict[str, str]]) -> str:
    """The whole text."""
    from recurra.catalogue import WIDTH, catalogue
    from recurra.mixers import MIXERS

    rows = catalogue()
    lines = [
        "# Architectures", "",
        "Generated by `python docs/architectures.py` from the docstrings, the states and the tests: edit those.", "",
    ]  # fmt: skip
    for room, (title, _) in ROOMS.items():
        own = [row for row in rows if row.room == room]
        lines += [f"- **{title}**: " + ", ".join(f"[`{row.name}`](#{row.name})" for row in own)] if own else []
    for room, (title, text) in ROOMS.items():
        own = [row for row in rows if row.room == room]
        lines += ["", f"## {title}", "", text] if own else []
        for row in own:
            size = f"{row.state_bytes:,} bytes" + (f" and {row.growth:,} more a step" if row.growth else "")
            doc = markdown(inspect.getdoc(MIXERS[row.name]) or "")
            lines += ["", f"### {row.name}", "", doc, "", f"**State at width {WIDTH}:** {size}.", ""]
            lines += [compared(row.name, errors)]
    missing = {row.room for row in rows} - ROOMS.keys()
    assert not missing, f"say in ROOMS what {missing} are good and bad at"
    return "\n".join(lines) + "\n"


def measure() -> dict[str, dict[str, str]]:
    """Run the tests that compare with others, and take the largest error of each."""
    import pytest
    import torch

    largest: dict[str, dict[str, float]] = {}
    now: list[str] = []

    def tensors(x):
        if isinstance(x, torch.Tensor):
            return [x]
        return [y for part in x for y in tensors(part)] if isinstance(x, list | tuple) else []

    real = torch.testing.assert_close

    def watched(actual, expected, **keywords):
        for one, other in zip(tensors(actual), tensors(expected), strict=True):
            finite = torch.isfinite(other)
            if now and finite.any() and (other.is_floating_point() or other.is_complex()):
                scale = other.detach()[finite].abs().max().clamp(min=1e-300)
                error = (one - other).detach()[finite].abs().max() / scale
                own = largest.setdefault(now[0], {})
                own[now[1]] = max(own.get(now[1], 0.0), float(error))
        return real(actual, expected, **keywords)

    torch.testing.assert_close = watched

    class Watch:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self, item):
            name = item.originalname.removeprefix("test_").replace("_", " ")
            now[:] = [str(item.path.relative_to(ROOT)), name]
            result = yield
            now.clear()
            return result

    folders = [str(path) for path in sorted(TESTS.iterdir()) if path.is_dir()]
    code = pytest.main([*folders, "-q", "-k", COMPARING, "--rootdir", str(ROOT)], plugins=[Watch()])
    assert code == 0, "errors are of tests that pass"
    return {path: {what: order(own[what]) for what in sorted(own)} for path, own in sorted(largest.items())}


def order(error: float) -> str:
    """The least power of ten that is no less."""
    return f"at most 1e{math.ceil(math.log10(error))}" if error else "none"


if __name__ == "__main__":
    if "--measure" in sys.argv:
        ERRORS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(ERRORS.read_text("utf-8"))), encoding="utf-8")
