"""Ways to give a command: in this process, in one of its own, and wrongly."""

import hashlib
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys

from forked import Popen
from typer.testing import CliRunner

from recurra.cli import app

# seconds after which a process hangs and is not merely slow: the machine may be busy, and importing takes its time
PATIENCE = 300
SMALL = ("--width", "16", "--depth", "1", "--batch", "64", "--length", "64")
STARTED: list[subprocess.Popen] = []
# one thread, and the package wherever it was imported from
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}


def call(*arguments, **keywords):
    return CliRunner().invoke(app, [str(x) for x in arguments], **keywords)


def command(*arguments):
    return [sys.executable, "-m", "recurra", *map(str, arguments)]


def start(*arguments, env=None, anew=False, **keywords):
    """The command in a process of its own; `anew` in one that has imported nothing, and may run something before."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    popen = subprocess.Popen if anew else Popen
    process = popen(command(*arguments), env=ENVIRONMENT | (env or {}), **{**pipes, **keywords})
    STARTED.append(process)
    return process


def wrong(*arguments, **keywords):
    """What a call that the user got wrong says: one sentence, exit code 2."""
    result = call(*arguments, **keywords)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert result.stdout == "" and result.stderr.startswith("recurra: ")
    (line,) = result.stderr.splitlines()
    return line


def memory(process, field="VmRSS"):
    """Bytes that a process holds, or, as VmHWM, the most that it ever held."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", status)[1])


def growth(blocks):
    """How much more memory a process holds after each of several blocks of equal work: the median of the differences.

    Where freed pieces lie in the heap, and which pages are large ones, can cost many megabytes once, whenever; what is
    kept of each step grows in every block.
    """
    return statistics.median(after - before for before, after in itertools.pairwise(blocks))


def contents(folder):
    return {str(x): hashlib.sha256(x.read_bytes()).hexdigest() for x in sorted(folder.rglob("*")) if x.is_file()}
