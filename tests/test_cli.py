"""The command as users meet it: what it prints, how it ends, and that a mistake costs one sentence and nothing else."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from recurra import MIXERS, doctor
from recurra.cli import app
from recurra.doctor import Check
from recurra.train import Config, train

COMMANDS = ("list", "train", "compare", "generate", "stream", "forecast", "doctor")
SMALL = ("--width", "16", "--depth", "1", "--batch", "64", "--length", "64")
STARTED: list[subprocess.Popen] = []
# one thread, and the package wherever it was imported from
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}


def call(*arguments, **keywords):
    return CliRunner().invoke(app, [str(x) for x in arguments], **keywords)


def command(*arguments):
    return [sys.executable, "-c", "from recurra.cli import main; main()", *map(str, arguments)]


def start(*arguments, **keywords):
    """The command in a process of its own."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # Ctrl-C reaches it even where these tests run in a shell's background, which ignores it
    heard = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    process = subprocess.Popen(command(*arguments), env=ENVIRONMENT, **{**pipes, **heard, **keywords})
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """Whatever a test does, what it started ends with it."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def wrong(*arguments, **keywords):
    """What a call that the user got wrong says: one sentence, exit code 2."""
    result = call(*arguments, **keywords)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert result.stdout == "" and result.stderr.startswith("recurra: ")
    (line,) = result.stderr.splitlines()
    return line


def contents(folder):
    return {str(x): hashlib.sha256(x.read_bytes()).hexdigest() for x in sorted(folder.rglob("*")) if x.is_file()}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "log.txt"
    path.write_text("".join(f"line {i % 7} of the log: all is well\n" for i in range(300)))
    return path


@pytest.fixture(scope="module")
def made(text):
    """A small run; use `run`, a copy."""
    folder = text.parent / "made"
    config = Config(
        source=str(text), arguments={"pattern": "gla", "width": 16, "depth": 1}, batch=16, length=32, steps=60,
        learning_rate=1e-2, warmup=5, evaluate_every=30, checkpoint_every=30, evaluation_tokens=512, threads=1,
    )  # fmt: skip
    train(config, folder)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "sales.csv"
    rows = [f"a,{i},{100 + i % 4}\nb,{i},{5 - i % 3}\n" for i in range(80)]
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    return path


# --- help, list, doctor


def test_help_imports_no_torch():
    code = (
        "import sys; from recurra.cli import app\n"
        "try: app(['train', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(name):
    result = call(name, "--help", terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: {'' if name != 'stream' else 'tail -f app.log | '}recurra {name}" in " ".join(
        result.stdout.split()
    )
    assert "--json" in result.stdout


def test_list_has_every_mixer_and_says_what_runs():
    rows = {row["name"]: row for row in json.loads(call("list", "--json").stdout)}
    assert list(rows) == list(MIXERS)
    for row in rows.values():
        assert row["state_bytes"] > 0 and 1980 < row["year"] <= 2026 and row["summary"]
        assert all(runs["loop"] is None for runs in row["runs"].values())
    assert rows["attention"]["grows"] and rows["attention"]["growth"] == 2048
    assert not rows["lstm"]["grows"] and rows["lstm"]["state_bytes"] == 2 * 256 * 4
    shown = call("list").stdout
    assert all(name in shown for name in MIXERS) and "+ 2,048 a step" in shown


def test_list_says_why_there_are_no_kernels(tmp_path):
    environment = {**ENVIRONMENT, "CC": "/no/such/compiler", "RECURRA_CACHE": str(tmp_path)}
    done = subprocess.run(command("list"), env=environment, capture_output=True, text=True, check=True)
    assert "native" in done.stdout and "no C compiler (/no/such/compiler)" in done.stdout


def test_doctor_finds_the_law_kept():
    result = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 0, result.stdout
    assert all(checks[f"law: {name}"]["ok"] for name in MIXERS)
    assert {"python", "torch", "threads", "compiler", "gpu", "bandwidth"} <= set(checks)


def test_doctor_ends_with_1_where_something_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "law", lambda name: Check(name, False, "broken"))
    monkeypatch.setattr(doctor, "bandwidth", lambda: 1e9)
    result = call("doctor")
    assert result.exit_code == 1 and "NO  lstm" in result.stdout


# --- train


def test_train_leaves_a_run_with_its_report(text, tmp_path):
    folder = tmp_path / "run"
    result = call("train", text, "--mixer", "gla", *SMALL, "--steps", 3, "--set", "heads=2", "--run", folder)
    assert result.exit_code == 0, result.output
    assert "held-out bits per byte" in result.stdout and "step 3/3" in result.stderr
    names = {x.name for x in folder.iterdir()}
    assert {"config.json", "model.safetensors", "metrics.jsonl", "result.json", "report.html"} <= names
    model = json.loads((folder / "config.json").read_text())["model"]
    assert model["pattern"] == "gla" and model["mixers"] == {"gla": {"heads": 2}}
    assert "order-2" in (folder / "report.html").read_text()


def test_train_on_a_task_says_json_only_on_stdout(tmp_path):
    result = call("train", "parity", "--mixer", "lstm", *SMALL, "--steps", 2, "--run", tmp_path / "r", "--json")
    shown = json.loads(result.stdout)
    assert shown["run"] == str(tmp_path / "r") and shown["steps"] == 2 and 0 <= shown["score"] <= 1


def test_resume_needs_nothing_said_again(run):
    before = json.loads((run / "result.json").read_text())
    result = call("train", "--resume", "--run", run)
    assert result.exit_code == 0, result.output
    assert json.loads((run / "result.json").read_text()) == before


def test_resume_with_other_settings_lists_the_differences(run):
    before = contents(run)
    line = wrong("train", "--resume", "--run", run, "--steps", 50, "--lr", 0.1)
    assert "steps was 60 and is 50" in line and "learning_rate was 0.01 and is 0.1" in line
    assert contents(run) == before


def test_resume_where_there_is_nothing_begins(text, tmp_path):
    arguments = ("train", text, "--mixer", "gla", *SMALL, "--steps", 2, "--run", tmp_path / "new", "--resume")
    assert call(*arguments).exit_code == 0


def test_ctrl_c_saves_and_says_how_to_go_on(text, tmp_path):
    folder = tmp_path / "run"
    process = start("train", text, "--mixer", "gla", *SMALL, "--steps", 100000, "--run", folder)
    assert process.stderr.readline().startswith(b"step 1/")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    last = said.decode().splitlines()[-1]
    assert "stopped after step" in last and f"recurra train --resume --run {folder}" in last
    assert list((folder / "checkpoints").iterdir())


# --- bad input: one sentence, exit code 2, nothing lost


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


def test_no_source_and_a_source_that_nothing_is_called():
    assert "the source is missing" in wrong("train")
    assert "the source is missing" in wrong("compare", "--mixers", "lstm")
    assert "did you mean copying" in wrong("train", "copyng")


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

    with open(tmp_path / "out", "wb") as out:
        process = start("list", "--json", stdout=out, preexec_fn=small_disk)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.startswith(b"recurra: the disk is full") and said.count(b"\n") == 1
    process = start("stream", run, "--state", tmp_path / "state", preexec_fn=small_disk)
    _, said = process.communicate(b"a line\n", timeout=60)
    assert process.returncode == 2 and said.startswith(b"recurra: the disk is full") and said.count(b"\n") == 1
    assert {x.name for x in tmp_path.iterdir()} == {"out", "run"}


# --- compare


def test_compare_prints_a_table_and_goes_on(text, tmp_path):
    folder = tmp_path / "c"
    small = ("--depth", 1, "--batch", 4, "--length", 32, "--steps", 4, "--parameters", "20k")
    arguments = ("compare", text, "--mixers", "lstm,gla", *small, "--run", folder)
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert {row["mixer"] for row in rows} == {"lstm", "gla"}
    assert all(abs(row["parameters"] - 20_000) <= 600 for row in rows)
    again = call("compare", "--resume", "--run", folder)
    assert again.exit_code == 0 and rows[0]["mixer"] in again.stdout and str(folder / "report.html") in again.stdout
    assert "training.steps was 4 and is 5" in wrong("compare", "--resume", "--run", folder, "--steps", 5)
    assert call("generate", folder, "--max-new-tokens", 3, input="a").exit_code == 0


# --- generate


def test_generate_writes_the_prompt_and_what_follows(run):
    first, second = (call("generate", run, "--prompt", "line", "--max-new-tokens", 20, "--seed", 1) for _ in range(2))
    assert first.exit_code == 0 and first.stdout.startswith("line") and len(first.stdout_bytes) == 4 + 20 + 1
    assert first.stdout_bytes == second.stdout_bytes


def test_generate_takes_a_prompt_from_a_pipe(run):
    options = ("--max-new-tokens", 20, "--temperature", 0)
    piped = call("generate", run, *options, input="line 3")
    said = call("generate", run, *options, "--prompt", "line 3")
    assert "line 3" + piped.stdout == said.stdout


def test_generate_as_json(run):
    result = call("generate", run, "--prompt", "l", "--max-new-tokens", 5, "--json", "--stats")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 5 and all({"token", "text"} == set(line) for line in lines)
    assert result.stderr.startswith("5 tokens, ") and "MiB resident" in result.stderr


def test_generate_has_no_end_and_a_closed_pipe_is_silent(run):
    process = start("generate", run, "--prompt", "x", "--max-new-tokens", 0, stdin=subprocess.DEVNULL)
    assert len(process.stdout.read(3000)) == 3000
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141 and said == b""


def test_generate_keeps_its_memory(run):
    process = start("generate", run, "--prompt", "x", "--max-new-tokens", 0, stdin=subprocess.DEVNULL)
    process.stdout.read(1000)
    before = resident(process)
    process.stdout.read(3000)
    after = resident(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert after - before < 2**20, f"{after - before} bytes more after 3000 tokens"
    assert process.returncode == 130 and b"Traceback" not in said


def test_generate_refuses_what_cannot_be(run, tmp_path):
    assert "top_p is 2.0" in wrong("generate", run, "--prompt", "x", "--top-p", 2)
    assert call("generate", run, "--temperature", -1).exit_code == 2
    call("train", "parity", "--mixer", "lstm", *SMALL, "--steps", 1, "--run", tmp_path / "parity")
    assert "was not trained on text but on parity" in wrong("generate", tmp_path / "parity")


# --- stream


def resident(process):
    """Bytes of memory that a process holds."""
    return int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(text, *arguments):
    process = start("stream", *arguments)
    out, said = process.communicate(text, timeout=120)
    assert process.returncode == 0, said
    return out


def test_a_line_for_every_line(run):
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    head = subprocess.Popen(["head", "-n", "1000"], stdin=yes.stdout, stdout=subprocess.PIPE)
    yes.stdout.close()
    process = start("stream", run, stdin=head.stdout)
    head.stdout.close()
    out, said = process.communicate(timeout=120)
    yes.wait()
    assert head.wait() == 0 and process.returncode == 0 and said == b""
    rows = [line.split(b"\t") for line in out.splitlines()]
    assert len(rows) == 1000 and {row[2] for row in rows} == {b"y"}
    assert all(abs(float(bits) - 2 * float(each)) < 0.1 for bits, each, _ in rows)


def test_a_line_comes_as_soon_as_it_is_complete(run):
    process = start("stream", run)
    for line in (b"the first\n", b"the second\n"):
        process.stdin.write(line)
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready and process.stdout.readline().endswith(b"\t" + line)
    process.communicate(timeout=60)


def test_memory_is_flat_on_a_long_pipe_and_on_a_line_without_end(run):
    process = start("stream", run)

    def held(text, field):
        """Memory once the process has read this text: what it holds (VmRSS), or the most it ever held (VmHWM)."""
        feeder = threading.Thread(target=lambda: (process.stdin.write(text), process.stdin.flush()))
        feeder.start()
        for _ in range(text.count(b"\n")):
            process.stdout.readline()
        feeder.join()
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return 1024 * int(re.search(rf"{field}:\s+(\d+)", status)[1])

    line = b"line 5 of the log: all is well\n"
    before = held(line * 10000, "VmRSS")
    after = held(line * 30000, "VmRSS")
    highest = held(line, "VmHWM")
    endless = held(b"x" * 2**20 + b"\n", "VmHWM")
    process.communicate(timeout=120)
    assert process.returncode == 0
    # the allocator keeps or returns a few pieces of a block; 300 bytes kept of each line would be seen
    assert after - before < 2**23, f"{after - before} bytes more after 30000 lines"
    # read in one call, its logits alone would be 1 GiB
    assert endless - highest < 2**27, f"{endless - highest} bytes more after a line of a megabyte"


def test_restarts_give_the_surprises_of_one_run(run, tmp_path):
    lines = [b"line %d of the log\n" % i for i in range(30)]
    whole = stream(b"".join(lines), run, "--json")
    parts = [b"".join(lines[:7]), b"".join(lines[7:8]), b"".join(lines[8:])]
    pieces = b"".join(stream(part, run, "--json", "--state", tmp_path / "state") for part in parts)
    one, other = ([json.loads(line) for line in x.splitlines()] for x in (whole, pieces))
    assert [x["text"] for x in one] == [x["text"] for x in other]
    assert [x["bits"] for x in one] == pytest.approx([x["bits"] for x in other], rel=1e-4, abs=1e-3)


def test_above_shows_only_what_surprises(run):
    out = stream(b"line 1 of the log: all is well\n" * 20 + b"\xff\x01ZQ!\n", run, "--above", "5")
    assert out.splitlines()[-1].endswith(b"ZQ!") and len(out.splitlines()) < 21


def test_sigterm_and_ctrl_c_keep_the_state(run, tmp_path):
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        state = tmp_path / number.name
        process = start("stream", run, "--state", state)
        process.stdin.write(b"some line\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"some line\n")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code and state.exists() and b"Traceback" not in said
        if number == signal.SIGINT:
            assert f"go on with: recurra stream {run} --state {state}".encode() in said


def test_a_reader_that_leaves_is_no_error(run, tmp_path):
    process = start("stream", run, "--state", tmp_path / "state")
    process.stdin.write(b"some line\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"another\n")
    process.stdin.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141 and said == b"" and (tmp_path / "state").exists()


def test_the_state_of_another_model(run, text, tmp_path):
    other, state = tmp_path / "other", tmp_path / "state"
    call("train", text, "--mixer", "lstm", *SMALL, "--steps", 1, "--run", other)
    stream(b"x\n", other, "--state", state)
    before = state.read_bytes()
    process = start("stream", run, "--state", state)
    out, said = process.communicate(b"y\n", timeout=60)
    assert process.returncode == 2 and out == b"" and said.count(b"\n") == 1
    assert b"holds the state of LanguageModel" in said and b"use the model that wrote it" in said
    assert state.read_bytes() == before


def test_a_damaged_state_file(run, tmp_path):
    (tmp_path / "state").write_bytes(b"not a state")
    process = start("stream", run, "--state", tmp_path / "state")
    out, said = process.communicate(b"y\n", timeout=60)
    assert process.returncode == 2 and out == b"" and b"is not a whole state file" in said
    save_file(load_file(run / "model.safetensors"), tmp_path / "state")
    process = start("stream", run, "--state", tmp_path / "state")
    assert b"is not a state file of this version" in process.communicate(b"y\n", timeout=60)[1]


# --- forecast


@pytest.fixture(scope="module")
def forecaster(series):
    folder = series.parent / "run"
    result = call(
        "train", series, "--mixer", "gla", *SMALL, "--task", "horizon=4", "--task", "quantiles=[0.1, 0.5, 0.9]",
        "--steps", 3, "--run", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder


def test_forecast_gives_a_long_frame(forecaster, series, tmp_path):
    result = call("forecast", forecaster, series, "--horizon", 3)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["unique_id"], row["ds"]) for row in rows] == [(x, str(t)) for x in "ab" for t in (80, 81, 82)]
    assert all(float(row["q0.1"]) <= float(row["q0.5"]) <= float(row["q0.9"]) for row in rows)
    out = tmp_path / "out.csv"
    assert call("forecast", forecaster, series, "--horizon", 3, "--out", out).stdout == ""
    assert out.read_text() == result.stdout
    assert len(json.loads(call("forecast", forecaster, series, "--json").stdout)) == 8


def test_forecast_refuses_what_it_cannot(forecaster, series, run, tmp_path):
    assert "trained for 1 to 4" in wrong("forecast", forecaster, series, "--horizon", 5)
    assert "does not exist" in wrong("forecast", forecaster, tmp_path / "missing.csv")
    assert "takes a forecaster" in wrong("forecast", run, series)
    assert wrong("forecast", forecaster, series, "--out", tmp_path / "no" / "folder.csv")
