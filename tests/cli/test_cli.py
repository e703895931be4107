"""The command as users meet it: what each part of it prints and leaves behind."""

import csv
import functools
import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from commands import ENVIRONMENT, PATIENCE, SMALL, call, command, contents, start, wrong

from recurra import MIXERS, catalogue, doctor
from recurra.doctor import Check
from recurra.glossary import SHELVES, about, keywords

COMMANDS = ("list", "train", "compare", "generate", "stream", "forecast", "doctor")


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


def test_list_has_every_mixer_and_says_what_runs(monkeypatch):
    # two commands, and the mixers looked at once
    monkeypatch.setattr(catalogue, "describe", functools.cache(catalogue.describe))
    rows = {row["name"]: row for row in json.loads(call("list", "--json").stdout)}
    assert list(rows) == list(MIXERS)
    for row in rows.values():
        assert row["state_bytes"] > 0 and 1980 < row["year"] <= 2026 and row["summary"]
        assert all(runs["loop"] is None for runs in row["runs"].values())
    assert rows["attention"]["grows"] and rows["attention"]["growth"] == 2048
    assert not rows["lstm"]["grows"] and rows["lstm"]["state_bytes"] == 2 * 256 * 4
    shown = call("list").stdout
    assert all(name in shown for name in MIXERS) and "+ 2,048 a step" in shown


@pytest.mark.parametrize("kind", [x for x in SHELVES if x != "mixers"])
def test_list_has_everything_of_a_kind(kind):
    table = SHELVES[kind].table
    assert json.loads(call("list", kind, "--json").stdout) == {
        name: about(x).splitlines()[0] for name, x in table.items()
    }
    assert [line.split()[0] for line in call("list", kind).stdout.splitlines()] == list(table)


def test_list_says_what_one_thing_is_and_what_it_takes():
    assert "temperature=16.0" in call("list", "gla").stdout and "Yang et al. 2024" in call("list", "gla").stdout
    assert "KEY=VALUE: tokenizer=None" in call("list", "text").stdout, "the source is no keyword of --task"
    (entry,) = json.loads(call("list", "rigl", "--json").stdout)
    assert entry["option"] == "--mask-set" and entry["keywords"]["every"] == "100" and "density" in entry["keywords"]
    for shelf in SHELVES.values():
        for name, thing in shelf.table.items():
            assert name and about(thing) and not set(keywords(shelf, thing)) & set(shelf.given)


def test_list_names_the_nearest():
    wrong = call("list", "gated_deltanett")
    assert wrong.exit_code == 2 and "did you mean 'gated_deltanet'" in wrong.stderr


def test_list_says_why_there_are_no_kernels(tmp_path):
    environment = {**ENVIRONMENT, "CC": "/no/such/compiler", "RECURRA_CACHE": str(tmp_path)}
    done = subprocess.run(command("list"), env=environment, capture_output=True, text=True, check=True)
    assert "native" in done.stdout and "no C compiler (/no/such/compiler)" in done.stdout


@pytest.mark.parametrize("arguments", [("list",), ("--help",), ("train", "--help"), ()], ids=" ".join)
def test_what_nobody_reads_on_ends_silently(arguments):
    # help ends before torch is imported
    process = start(*arguments, env={"COLUMNS": "80"}, anew=arguments != ("list",))
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 141 and process.stderr.read() == b""


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
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = said.decode().splitlines()[-1]
    assert "stopped after step" in last and f"recurra train --resume --run {folder}" in last
    assert list((folder / "checkpoints").iterdir())


def test_a_closed_terminal_saves(text, tmp_path):
    folder, (ours, theirs) = tmp_path / "run", pty.openpty()

    def before():
        # it is told of the end even where these tests are not: a shell's background may ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.login_tty(theirs)

    terminal = dict(stdin=theirs, stdout=theirs, stderr=theirs, anew=True, preexec_fn=before)
    process = start("train", text, "--mixer", "gla", *SMALL, "--steps", 100000, "--run", folder, **terminal)
    os.close(theirs)
    shown = b""
    while b"loss" not in shown:
        shown += os.read(ours, 1024)
    os.close(ours)
    process.wait(timeout=PATIENCE)
    assert list((folder / "checkpoints").iterdir())


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
