"""`python -m train.pausing SETTINGS.json FOLDER`: a worker that waits after a step until it is stopped, or killed.

So tests stop it in the middle of its run, however busy the machine is.
"""

import os
import sys
import time

from recurra.train import stopping, worker

AT = 40


class Pausing(worker.Orphan):
    """Waits after step `AT`, unless it was asked before; and not for a parent that is gone."""

    asked_to_stop = False

    def line(self, line: dict) -> None:
        super().line(line)
        while line["step"] == AT and not Pausing.asked_to_stop and os.getppid() == self.parent:
            time.sleep(0.01)


class Stop(stopping.Stop):
    def ask(self, number, frame):
        Pausing.asked_to_stop = True
        super().ask(number, frame)


if __name__ == "__main__":
    stopping.Stop, worker.Orphan = Stop, Pausing
    sys.exit(worker.main(*sys.argv[1:]))
