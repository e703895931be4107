"""Who may import whom. A line belongs in the lowest room that knows what it knows, and rooms only look down."""

import ast
import functools
import pathlib

import pytest

import recurra

ROOT = pathlib.Path(recurra.__file__).parent
GROUND = {"shapes", "checks", "files", "exits"}
STATE = GROUND | {"clock", "state"}
MIXERS = STATE | {"ops", "parts", "mixers", "memory"}
TABLES = MIXERS | {"nn", "models", "tasks"}
WINDOW = ""  # the package itself: its version and where it lies
# room -> the rooms it may import, besides itself
MAY = {
    "shapes": set(),
    "checks": set(),
    "files": set(),
    "pages": set(),
    "exits": {"files"},
    "clock": {"shapes"},
    "state": GROUND,
    "ops": STATE,
    "parts": STATE | {"ops"},
    "mixers": STATE | {"ops", "parts"},
    "memory": STATE | {"ops", "parts"},
    "nn": MIXERS,
    "models": MIXERS,
    "tasks": {"shapes", "checks"},
    "train": TABLES | {WINDOW},
    "lens": TABLES | {WINDOW},
    "serve": TABLES - {"tasks"} | {WINDOW},
    # the commands' own work, each under a screen
    "catalogue": TABLES | {WINDOW},
    "doctor": TABLES | {WINDOW},
    "glossary": TABLES | {"train"},
    "__main__": {"cli", "exits"},
    "cli": TABLES | {"train", "lens", "serve", "catalogue", "doctor", "glossary", WINDOW},
    WINDOW: {"pages", "clock", "mixers", "ops", "state", "nn", "models", "tasks"},
}


def _room(name):
    """The room of a dotted module name: "recurra.ops.scan" is in "ops", "recurra" itself in ""."""
    return name.split(".")[1] if "." in name else ""


def _sources():
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("recurra", *path.relative_to(ROOT).with_suffix("").parts)
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _imports(path):
    """The dotted names of all that a file imports, wherever in the file."""
    return frozenset(_imported(path, ast.walk(_tree(path))))


@functools.cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path, nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself: write the whole name"
            inside = node.module == "recurra"
            yield from (f"recurra.{alias.name}" for alias in node.names) if inside else (node.module or "",)


def _room_of_name(name):
    """As `_room`, where `from recurra import x` may mean a room or a name in the shop window."""
    room = _room(name)
    return room if (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file() else ""


SOURCES = [pytest.param(path, name, id=name) for path, name in _sources()]


@pytest.mark.parametrize(("path", "name"), SOURCES)
def test_rooms_only_look_down(path, name):
    room = _room(name)
    assert room in MAY, f"{room} is a new room: say in this test what it may import"
    ours = {x for x in _imports(path) if x == "recurra" or x.startswith("recurra.")}
    wrong = {x for x in ours if _room_of_name(x) not in MAY[room] | {room}}
    assert not wrong, f"{name} may not import {sorted(wrong)}"


@pytest.mark.parametrize(("path", "name"), SOURCES)
def test_only_one_kind_of_file_knows_the_gpu(path, name):
    if path.name != "gpu.py":
        assert not {x.split(".")[0] for x in _imports(path)} & {"triton", "fla"}


@pytest.mark.parametrize(("path", "name"), SOURCES)
def test_only_one_room_starts_a_compiler(path, name):
    """What trains may start processes of its own; nothing below it but `ops.native` starts any."""
    if _room(name) in MIXERS | {"models", "nn", "tasks", ""} and not name.startswith("recurra.ops.native"):
        assert not {x.split(".")[0] for x in _imports(path)} & {"subprocess", "ctypes", "cffi", "multiprocessing"}


@pytest.mark.parametrize(("path", "name"), SOURCES)
def test_nothing_is_pickled(path, name):
    assert not {x.split(".")[0] for x in _imports(path)} & {"pickle", "shelve", "dill", "joblib", "cloudpickle"}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("save", "load"), f"{name} uses torch.{node.attr}: write safetensors"
