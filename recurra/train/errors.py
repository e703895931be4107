"""What goes wrong in a run, in one sentence each: whoever catches these prints them and no traceback."""


class RunError(ValueError):
    """Something that the user can put right: a setting, a folder, a disk. The message is one clear sentence."""


class Stopped(KeyboardInterrupt):
    """The user asked to stop; everything is saved and the message says how to go on. Programs exit with 130."""


class Incomplete(RunError):
    """Some runs of a comparison failed. `rows` is the table of those that did not."""

    def __init__(self, message: str, rows: list[dict]) -> None:
        super().__init__(message)
        self.rows = rows
