"""Ctrl-C asks a run to stop between two steps, where everything can be saved; a second one stops it at once.

So does a terminal that is closed, except under nohup.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# some systems have none
HANG_UP = getattr(signal, "SIGHUP", None)


class Stop:
    """Whether someone asked to stop."""

    asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        # a shell that is closed hangs up as well as its terminal: twice
        if self.asked and number != HANG_UP:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Inside, SIGINT, SIGTERM and SIGHUP are requests. Only the main thread hears signals; others change nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup ignores it
    if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
        numbers.append(HANG_UP)
    before = [signal.signal(number, stop.ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            # None: a handler that Python did not set, and cannot set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
