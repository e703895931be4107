"""A stream piped into the command: learned from as it comes, saved however it ends, in memory that stays."""

import math
import signal

from commands import PATIENCE, call, growth, memory, start

SMALL = ("--endless", "--mixer", "gru", "--width", 8, "--depth", 1, "--length", 16, "--task", "horizon=4")


def rows(first, last):
    return "".join(f"{i},{5 + math.sin(i / 3):.4f}\n" for i in range(first, last)).encode()


def lines(process, until):
    """What the process says on stderr, up to a line with these words."""
    found = []
    while not found or until not in found[-1]:
        line = process.stderr.readline()
        assert line, found
        found.append(line)
    return found


def test_a_pipe_that_stays_open_is_learned_from_in_constant_memory_and_ctrl_c_saves(tmp_path):
    process = start("train", "-", *SMALL, "--evaluate-every", 100, "--run", tmp_path / "run")

    def fed(first, last):
        process.stdin.write(rows(first, last))
        process.stdin.flush()

    process.stdin.write(b"ds,sine\n")
    fed(0, 4)
    blocks = []
    for step in range(0, 600, 100):
        fed(16 * step + 4, 16 * (step + 100) + 4)
        first, *_ = lines(process, f"step {step + 100}  held-out".encode())
        assert step or b"series: sine" in first
        blocks.append(memory(process))
    # if what the model gives were kept, 100 updates would be 3.6 MB
    assert growth(blocks) < 2**20, blocks
    # nothing more comes: it waits
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in said
    assert b"stopped after step 600;" in said and f"--resume --run {tmp_path / 'run'}".encode() in said
    assert (tmp_path / "run/checkpoints/step-000000600").is_dir()


def test_ctrl_c_before_there_is_a_run_names_none_to_resume(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recurra.train.train", stopped)
    done = call("train", "-", *SMALL, "--run", tmp_path / "run")
    assert done.exit_code == 130 and done.stderr.strip() == "recurra: stopped"


def test_one_sentence_for_what_is_wrong(tmp_path):
    process = start("train", "-", *SMALL, "--run", tmp_path / "run")
    out, said = process.communicate(b"ds,sine\n1,2\n2,\n", timeout=PATIENCE)
    assert process.returncode == 2 and out == b"" and not (tmp_path / "run").exists()
    assert said == b"recurra: the pipe has no value in column sine, row 2: fill it or leave the row out\n"
    process = start("train", "-", *SMALL, "--task", "quantiles=0.5", "--run", tmp_path / "run")
    _, said = process.communicate(b"ds,sine\n1,2\n2,3\n", timeout=PATIENCE)
    assert process.returncode == 2 and said == b"recurra: quantiles is 0.5: it must be a list, each a number\n"
    help_ = call("train", "--help").stdout
    assert "--endless" in help_ and "recurra train -" in " ".join(help_.split())
