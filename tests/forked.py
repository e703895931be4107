"""Processes that do not import torch, which takes two seconds of each: they are forked from one that has.

A server, one for each process of tests, imports what the command needs and waits. `Popen` is subprocess's, but what it
starts is a child of that server, twice over, so that the test's process adopts it: it has its own id, streams,
environment, session and signals, and is waited for and killed as any other. It runs as the interpreter's own program,
which ends it. Where the importing is what is tested, or what runs before it, use subprocess's.
"""

import atexit
import ctypes
import functools
import gc
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
SERVER = "import sys; sys.path[:0] = {paths}; import forked; forked.become(forked.request(int(sys.argv[1])))"
ADOPT = 36  # Linux's PR_SET_CHILD_SUBREAPER
MOST = 1 << 17  # bytes of a request
ONE_BY_ONE = threading.Lock()  # of two threads each would be told the other's process


def request(number):
    """In the server: what is asked for next, in a process of its own for each."""
    # which torch imports with the first optimiser
    import torch._dynamo  # noqa: F401

    import recurra.catalogue
    import recurra.cli
    import recurra.models
    import recurra.tasks
    import recurra.train.worker  # noqa: F401

    # no child looks through what was imported for what it may forget, nor copies it by looking
    gc.freeze()
    door = socket.socket(fileno=number)
    while True:
        text, streams, *_ = socket.recv_fds(door, MOST, 3)
        if not text:
            sys.exit()
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            wanted = json.loads(text)
            # who would wait for a child that is not yet its own is told that it ended
            while os.getppid() != wanted["parent"]:
                time.sleep(0.001)
            door.send(str(os.getpid()).encode())
            for place, stream in enumerate(streams):
                os.dup2(stream, place)
            for stream in (*streams, door.detach()):
                os.close(stream)
            return wanted
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)


def become(wanted):
    """In a child of the server: the program that was asked for."""
    if wanted["session"]:
        os.setsid()
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    way, what, *arguments = wanted["command"]
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [way, *arguments]
    if way == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


@functools.cache
def _server():
    """A socket to this process's own server."""
    assert ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0) == 0
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = SERVER.format(paths=[str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(its.fileno())], pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    its.close()
    # a child that dies before it answers is an error, and no wait for ever
    ours.settimeout(120)
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


class _Forked(subprocess.Popen):
    """Of `[sys.executable, "-c", code, ...]` or `[sys.executable, "-m", module, ...]`, on one thread."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, p2cread,
        p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask, start_new_session, *_,
    ):  # fmt: skip
        assert args[0] == sys.executable and args[1] in ("-c", "-m") and preexec_fn is None
        wanted = {
            "command": args[1:], "environment": dict(os.environ if env is None else env), "parent": os.getpid(),
            "folder": str(cwd or os.getcwd()), "session": start_new_session,
        }  # fmt: skip
        streams = [given if given != -1 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        with ONE_BY_ONE:
            door = _server()
            socket.send_fds(door, [json.dumps(wanted).encode()], streams)
            answer = door.recv(MOST)
        assert answer, "the server is gone"
        self.pid, self._child_created = int(answer), True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


# elsewhere nobody adopts
Popen = _Forked if sys.platform == "linux" else subprocess.Popen
