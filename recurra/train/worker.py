"""One run of a comparison, in a process of its own: `python -m recurra.train.worker SETTINGS.json FOLDER`.

A process of its own has its own threads, its own memory and its own end: whatever becomes of it, the others go on.
"""

import json
import os
import pathlib
import signal
import sys

from recurra.train.config import Config
from recurra.train.errors import Stopped
from recurra.train.loop import train
from recurra.train.progress import Progress


class Orphan(Progress):
    """Shows nothing; when the process that started this one has gone, saves and stops."""

    def __init__(self) -> None:
        self.parent, self.asked = os.getppid(), False

    def line(self, line: dict) -> None:
        if os.getppid() != self.parent and not self.asked:
            self.asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main(settings: str, folder: str) -> int:
    """Train, from the start or from where it stopped; the exit code is 0, 2 (an error, in one sentence) or 130."""
    try:
        config = Config.from_json(json.loads(pathlib.Path(settings).read_text(encoding="utf-8")))
        train(config, folder, resume=(pathlib.Path(folder) / "config.json").exists(), progress=Orphan())
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
