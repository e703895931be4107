"""Text that follows a prompt, as it comes, for ever if asked, and a meter that shows that memory and pace stay flat."""

import codecs
import json
import pathlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from recurra.shapes import State

PIECE = 1024  # tokens of a prompt read at once
PAUSE = 10.0  # seconds between what a meter says


class Piece(NamedTuple):
    """One token: its number, its bytes, and the characters that they complete (none inside a character)."""

    token: int
    data: bytes
    text: str

    def to_json(self) -> bytes:
        """One JSON object on a line."""
        return json.dumps({"token": self.token, "text": self.text}).encode() + b"\n"


def write_on(model: Any, codec: Any, prompt: bytes, **settings: Any) -> Iterator[Piece]:
    """What a language model writes after a prompt; `settings` are those of its `stream`.

    Raises:
        ValueError: the prompt has no token, or a setting is out of range.
    """
    tokens = codec.encode(prompt)
    state = _read(model, tokens[:-1])
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in model.stream(torch.tensor([tokens[-1:]], dtype=torch.int64), state=state, **settings):
        data = codec.decode([int(token)])
        yield Piece(int(token), data, decoder.decode(data))


@torch.no_grad()
def _read(model: Any, tokens: list[int]) -> State | None:
    """The state after tokens, read in pieces, so that a long prompt takes little memory."""
    state = None
    for start in range(0, len(tokens), PIECE):
        _, state = model(torch.tensor([tokens[start : start + PIECE]]), state)
    return state


class Meter:
    """Counts tokens, and says how fast they came since it last said so and how much memory the process holds."""

    def __init__(self) -> None:
        self.tokens, self._before = 0, 0
        self._since = time.monotonic()

    def count(self) -> bool:
        """One more token. True when it is time to say something."""
        self.tokens += 1
        return time.monotonic() - self._since >= PAUSE

    def said(self) -> str:
        """One line; the pace is counted anew from here."""
        now = time.monotonic()
        pace = (self.tokens - self._before) / max(now - self._since, 1e-9)
        self._before, self._since = self.tokens, now
        return f"{self.tokens:,} tokens, {pace:,.0f} a second, {resident() / 2**20:.1f} MiB resident"


def resident() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most that it ever held."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
