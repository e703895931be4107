"""A mistake costs one sentence, exit code 2, and nothing that was there."""

import json
import resource

import pytest
from commands import PATIENCE, call, contents, start, wrong

from recurra.glossary import SHELVES, keywords
from recurra.tasks import TASKS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"", "is empty"),
        ("binary.txt", bytes(range(256)) * 50, "is not text"),
        ("nan.csv", b"unique_id,ds,y\na,1,1\na,2,nan\n", "column y, row 2"),
        ("words.csv", b"unique_id,ds,y\na,1,1\na,2,many\n", "'many' in column y, row 2"),
        ("one.csv", b"unique_id,ds,y\na,1,1\n", "one row only"),
    ],
)
def test_a_bad_source(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert said in wrong("train", path, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert content is None or path.read_bytes() == content


def test_a_folder_without_text(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture").write_bytes(bytes(range(256)))
    assert "has no text files" in wrong("train", tmp_path / "folder", "--run", tmp_path / "run")
    assert "has no text files" in wrong("compare", tmp_path / "folder", "--mixers", "lstm", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mixer", "gated_deltanett"), "did you mean 'gated_deltanet'"),
        (("--mixer", "gla", "--set", "head=2"), "did you mean 'heads'"),
        (("--mixer", "gla,lstm", "--set", "heads=2"), "write gla.heads"),
        (("--mixer", "gla", "--set", "lstm.heads=2"), "none of gla"),
        (("--mixer", "gla", "--set", "heads"), "is not KEY=VALUE"),
        (("--mixer", "gla", "--task", "hold_out=0.5"), "did you mean held_out"),
        (("--tokenizer", "/no/such/tokenizer.json"), "does not exist"),
        (("--steps", "0"), "steps is 0: it must be at least 1"),
        (("--width", "-8"), "width is -8: it must be at least 1"),
        (("--hidden", "-8"), "hidden is -8: it must be at least 0"),
    ],
)
def test_a_bad_setting(text, tmp_path, arguments, said):
    assert said in wrong("train", text, *arguments, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mixers", "lstm,gruu"), "did you mean 'gru'"),
        (("--mixers", "lstm", "--parameters", "many"), "'many' is not a number"),
        (("--mixers", "lstm", "--parameters", "10"), "cannot have 10 parameters"),
        (("--preset", "demos"), "did you mean 'demo'"),
        ((), "no mixers were named"),
    ],
)
def test_a_bad_comparison(text, tmp_path, arguments, said):
    assert said in wrong("compare", text, *arguments, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", [name for name in TASKS if keywords(SHELVES["tasks"], TASKS[name])])
def test_a_keyword_of_another_type(text, series, tmp_path, task):
    source = {"text": text, "series": series}.get(task, task)
    for key in keywords(SHELVES["tasks"], TASKS[task]):
        line = wrong("train", source, "--task", f'{key}={{"abc": 1}}', "--run", tmp_path / "run")
        assert f"{key} is {{'abc': 1}}: it must be " in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "heads=abc"), "heads is 'abc': it must be a whole number"),
        (("--rule", "snap", "--rule-set", "steps=abc"), "steps is 'abc': it must be a whole number"),
        (("--mask", "static", "--mask-set", "density=abc"), "density is 'abc': it must be a number or null"),
        (("--task", "source=x"), "source is no keyword of a task here"),
    ],
)
def test_so_of_mixers_rules_and_masks(tmp_path, arguments, said):
    assert said in wrong("train", "parity", "--mixer", "gla", *arguments, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_source_and_a_source_that_nothing_is_called():
    assert "the source is missing" in wrong("train")
    assert "the source is missing" in wrong("compare", "--mixers", "lstm")
    assert "did you mean copying" in wrong("train", "copyng")
    # what a shell makes of a variable that is not set is not this folder
    assert "the source is empty text" in wrong("train", "")


def test_a_folder_that_holds_something_is_not_written_to(run, text):
    before = contents(run)
    assert "is not empty" in wrong("train", text, "--run", run)
    assert contents(run) == before


def test_a_run_of_another_version(run):
    config = json.loads((run / "config.json").read_text())
    config["recurra"]["format"] = 99
    (run / "config.json").write_text(json.dumps(config))
    before = contents(run)
    for arguments in (("generate", run), ("stream", run), ("train", "--resume", "--run", run)):
        assert "another version of recurra" in wrong(*arguments)
    assert contents(run) == before


def test_a_folder_that_is_no_run(tmp_path):
    assert "is not a run" in wrong("generate", tmp_path)
    assert "is not a run" in wrong("generate", tmp_path / "missing")


def test_truncated_weights(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    before = contents(run)
    assert "truncated or damaged" in wrong("generate", run)
    assert contents(run) == before


def test_truncated_checkpoints(run):
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    checkpoints = contents(run / "checkpoints")
    result = call("train", "--resume", "--run", run)
    assert result.exit_code == 2 and "truncated or was changed" in result.stderr.splitlines()[-1]
    assert contents(run / "checkpoints") == checkpoints


def test_an_error_of_ours_keeps_its_traceback_and_debug_shows_all(monkeypatch, tmp_path):
    monkeypatch.setenv("RECURRA_DEBUG", "1")
    result = call("generate", tmp_path)
    assert isinstance(result.exception, ValueError) and "is not a run" in str(result.exception)
    monkeypatch.delenv("RECURRA_DEBUG")
    monkeypatch.setattr("recurra.catalogue.catalogue", lambda: [][0])
    assert isinstance(call("list").exception, IndexError)


def test_a_full_disk(run, tmp_path):
    def small_disk():
        # files end at so many bytes, as they do where the disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    # or Python would keep the first bytes of a module's code for the next process
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    with open(tmp_path / "out", "wb") as out:
        process = start("list", "--json", env=env, stdout=out, anew=True, preexec_fn=small_disk)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and said.startswith(b"recurra: the disk is full") and said.count(b"\n") == 1
    process = start("stream", run, "--state", tmp_path / "state", env=env, anew=True, preexec_fn=small_disk)
    _, said = process.communicate(b"a line\n", timeout=PATIENCE)
    assert process.returncode == 2 and said.startswith(b"recurra: the disk is full") and said.count(b"\n") == 1
    assert {x.name for x in tmp_path.iterdir()} == {"out", "run"}
