"""How a command ends. What the user did wrong is one sentence and exit code 2, a stop is 130, a closed pipe is silent.

Anything else is our mistake and shows its traceback. `RECURRA_DEBUG=1` shows every traceback.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

WRONG, STOPPED, PIPE_CLOSED = 2, 130, 141
# libraries in Rust only quote what the system says, and the path
_RUST = re.compile(r'I/O error: (.+?) \(os error \d+\)(?: at path "(.+)")?')


@contextlib.contextmanager
def polite() -> Iterator[None]:
    """Turn what a command raises into its last words and its exit code."""
    try:
        with _stops_while_importing():
            yield
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still in the buffer goes nowhere, or Python would complain about it while it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None
    except SystemExit as end:
        # rich's tables end with 1 when nobody reads them
        raise SystemExit(PIPE_CLOSED) if isinstance(end.__context__, BrokenPipeError) else end from None
    except KeyboardInterrupt as stop:
        print(f"\nrecurra: {one_line(stop) or 'stopped'}", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        sentence = complaint(error)
        if sentence is None or os.environ.get("RECURRA_DEBUG") == "1":
            raise
        print(f"recurra: {sentence}", file=sys.stderr)
        raise SystemExit(WRONG) from None


def open_streams() -> None:
    """Let a standard stream that was closed by whoever started us lead nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


@contextlib.contextmanager
def _stops_while_importing() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once while something is imported, and elsewhere raises as ever.

    Libraries in C lose what is raised while they are imported, or go on half made.
    """
    asked = signal.getsignal(signal.SIGINT)
    if asked is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, asked)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The signal handler."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"\nrecurra: stopped\n")
            os._exit(STOPPED)
        frame = frame.f_back
    raise KeyboardInterrupt


def complaint(error: Exception) -> str | None:
    """What to tell the user; None where it is not the user who can put it right."""
    # the door of the command must be light
    from recurra.files import is_full

    if is_full(error):
        return f"the disk is full ({one_line(error)}); what was there before is whole: make room and go on"
    if refused := _RUST.search(str(error)):
        return f"{refused[2] or 'a file'}: {refused[1]}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_memory(str(error))):
        return "there is not enough memory: make the model, the batch or its rows smaller"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("recurra"):
        return f"this needs the package {error.name}: pip install {error.name}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return one_line(error) if _ours(error) else None


def one_line(error: BaseException) -> str:
    """The message without its line breaks."""
    return " ".join(str(error).split())


def _is_memory(said: str) -> bool:
    """Whether torch says that it could not have the memory that it asked for."""
    return "can't allocate memory" in said or "out of memory" in said


def _ours(error: Exception) -> bool:
    """Whether one of our rooms said so: a class of ours, or a ValueError that was raised in our own code."""
    if isinstance(error, ValueError) and type(error).__module__.startswith("recurra."):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_in = "" if place is None else place.tb_frame.f_globals.get("__name__", "")
    return type(error) is ValueError and raised_in.startswith("recurra.")
