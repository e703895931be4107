"""Several processes at a time until all jobs are done: each one thread, each ended by its own number, none left behind.

They are started in sessions of their own, so that Ctrl-C reaches this process alone and it passes the wish on once.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import recurra
from recurra.train.stopping import Stop

PAUSE = 0.25
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Job(NamedTuple):
    """What `python -m module *arguments` shall do, and the file that takes what it says."""

    name: str
    module: str
    arguments: list[str]
    log: pathlib.Path


def run(jobs: list[Job], workers: int, stop: Stop, look: Callable[[set[str], dict[str, int]], None]) -> dict[str, int]:
    """Run jobs, `workers` at a time; returns the exit code of each that ended.

    `look(running, ended)` is called a few times a second. When a stop is asked for, no job is started, those that
    run are sent SIGINT, and their end is waited for.
    """
    waiting, running, ended = list(jobs), {}, {}
    asked = False
    try:
        while running or (waiting and not stop.asked):
            while waiting and len(running) < workers and not stop.asked:
                job = waiting.pop(0)
                running[job.name] = start(job)
            if stop.asked and not asked:
                asked = True
                for process in running.values():
                    process.send_signal(signal.SIGINT)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                ended[name] = running.pop(name).returncode
            look(set(running), ended)
            if running:
                time.sleep(PAUSE)
    finally:
        # only after a second Ctrl-C, or an error of ours
        for process in running.values():
            process.kill()
            process.wait()
    return ended


def complaint(job: Job, code: int) -> str:
    """Why a job failed, in one sentence: the last that it said, or the signal that ended it."""
    if code < 0:
        why = " (often: out of memory)" if -code == signal.SIGKILL else ""
        return f"{job.name} was ended by {signal.Signals(-code).name}{why}"
    said = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{job.name}: {said[-1].strip()}" if said else f"{job.name} ended with code {code}"


def start(job: Job) -> subprocess.Popen[bytes]:
    """A job's process, in a session of its own."""
    # it finds this same package, wherever it was imported from
    home = str(pathlib.Path(recurra.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    with job.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", job.module, *job.arguments], env={**os.environ, **_ONE_THREAD, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
