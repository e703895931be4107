"""Ctrl-C asks a run to stop between two steps, where everything can be saved; a second one stops it at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether someone asked to stop."""

    asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM are requests. Only the main thread hears signals; elsewhere nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop.ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            # None: a handler that Python did not set, and cannot set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
