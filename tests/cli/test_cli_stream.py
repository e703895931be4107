"""Pipes without end: bytes as they come, memory that stays, state that outlives the process."""

import json
import select
import signal
import subprocess
import threading

import pytest
from commands import PATIENCE, SMALL, call, growth, memory, start, wrong
from safetensors.torch import load_file, save_file


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
    assert process.wait(PATIENCE) == 141 and said == b""


def test_generate_keeps_its_memory(run):
    process = start("generate", run, "--prompt", "x", "--max-new-tokens", 0, stdin=subprocess.DEVNULL)
    blocks = []
    for _ in range(6):
        process.stdout.read(2000)
        blocks.append(memory(process))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    # if states were kept, 2000 tokens would be 1.4 MB
    assert growth(blocks) < 2**19, blocks
    assert process.returncode == 130 and b"Traceback" not in said


def test_generate_refuses_what_cannot_be(run, tmp_path):
    assert "top_p is 2.0" in wrong("generate", run, "--prompt", "x", "--top-p", 2)
    assert call("generate", run, "--temperature", -1).exit_code == 2
    call("train", "parity", "--mixer", "lstm", *SMALL, "--steps", 1, "--run", tmp_path / "parity")
    assert "was not trained on text but on parity" in wrong("generate", tmp_path / "parity")


def stream(text, *arguments):
    process = start("stream", *arguments)
    out, said = process.communicate(text, timeout=PATIENCE)
    assert process.returncode == 0, said
    return out


def test_a_line_for_every_line(run):
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    head = subprocess.Popen(["head", "-n", "1000"], stdin=yes.stdout, stdout=subprocess.PIPE)
    yes.stdout.close()
    process = start("stream", run, stdin=head.stdout)
    head.stdout.close()
    out, said = process.communicate(timeout=PATIENCE)
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
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready and process.stdout.readline().endswith(b"\t" + line)
    process.communicate(timeout=PATIENCE)


def test_memory_is_flat_on_a_long_pipe_and_on_a_line_without_end(run):
    process = start("stream", run)

    def held(text, field):
        """Memory once the process has read this text: what it holds (VmRSS), or the most it ever held (VmHWM)."""
        feeder = threading.Thread(target=lambda: (process.stdin.write(text), process.stdin.flush()))
        feeder.start()
        for _ in range(text.count(b"\n")):
            process.stdout.readline()
        feeder.join()
        return memory(process, field)

    line = b"line 5 of the log: all is well\n"
    # pieces as large as can be, then some that are read whole, each at once: what a step takes is the same each time
    held(line * 10000, "VmRSS")
    blocks = [[held(line * 100, "VmRSS") for _ in range(100)][-1] for _ in range(6)]
    highest = held(line, "VmHWM")
    endless = held(b"x" * 2**20 + b"\n", "VmHWM")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert growth(blocks) < 2**20, f"each after 10000 lines more: {blocks}"
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
        _, said = process.communicate(timeout=PATIENCE)
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
    assert process.wait(PATIENCE) == 141 and said == b"" and (tmp_path / "state").exists()


def test_the_state_of_another_model(run, text, tmp_path):
    other, state = tmp_path / "other", tmp_path / "state"
    call("train", text, "--mixer", "lstm", *SMALL, "--steps", 1, "--run", other)
    stream(b"x\n", other, "--state", state)
    before = state.read_bytes()
    process = start("stream", run, "--state", state)
    out, said = process.communicate(b"y\n", timeout=PATIENCE)
    assert process.returncode == 2 and out == b"" and said.count(b"\n") == 1
    assert b"holds the state of LanguageModel" in said and b"use the model that wrote it" in said
    assert state.read_bytes() == before


def test_a_damaged_state_file(run, tmp_path):
    (tmp_path / "state").write_bytes(b"not a state")
    process = start("stream", run, "--state", tmp_path / "state")
    out, said = process.communicate(b"y\n", timeout=PATIENCE)
    assert process.returncode == 2 and out == b"" and b"is not a whole state file" in said
    save_file(load_file(run / "model.safetensors"), tmp_path / "state")
    process = start("stream", run, "--state", tmp_path / "state")
    assert b"is not a state file of this version" in process.communicate(b"y\n", timeout=PATIENCE)[1]
