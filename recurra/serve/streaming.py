"""Read a pipe that never ends and say how surprising each line is, in memory that does not grow.

The state that a line leaves is where the next line begins, across pauses and, through a file, across restarts. Lines
that are there together are read in one call, because a cut changes nothing; a line too long to hold is read in pieces
for the same reason.
"""

import json
import os
import pathlib
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from recurra import state as states
from recurra.shapes import State, Tensor

BLOCK = 1 << 16  # bytes taken from the pipe at once, held of an unfinished line, and shown of a long one
PIECE = 1024  # tokens in one call of the model
SAVE_SECONDS = 5.0  # between saves of the state


class Line(NamedTuple):
    """One line and how surprising it was.

    `text` is the line without its end, at most its first `BLOCK` bytes; `size` counts all of its bytes and its end.
    """

    bits: float
    size: int
    text: bytes

    @property
    def bits_per_byte(self) -> float:
        """Surprise per byte: 8 is noise, 0 is what was certain."""
        return self.bits / self.size

    def to_text(self) -> bytes:
        """Bits, bits per byte and the line, with tabs between."""
        whole = self.size <= len(self.text) + 1
        rest = b"" if whole else f" [{self.size} bytes]".encode()
        return f"{self.bits:.1f}\t{self.bits_per_byte:.2f}\t".encode() + self.text + rest + b"\n"

    def to_json(self) -> bytes:
        """One JSON object on a line."""
        shown = {"bits": self.bits, "bits_per_byte": self.bits_per_byte, "bytes": self.size}
        return json.dumps({**shown, "text": self.text.decode("utf-8", "replace")}).encode() + b"\n"


class Reader:
    """Bytes in, in any pieces; lines and their surprise out, each as soon as it is complete.

    Args:
        model: a language model; its `surprise` is what is read.
        encode: bytes to tokens.
        state: what `position` gave earlier, to go on from there; None: the start.
        steps: tokens read before.
    """

    def __init__(
        self, model: Any, encode: Callable[[bytes], list[int]], state: State | None = None, steps: int = 0
    ) -> None:
        self.model, self.encode = model, encode
        # logits of zero: before the first token all are equally likely
        start = (model.initial_state(1), torch.zeros(1, model.config["vocabulary"]))
        self._state, self._steps = start if state is None else state, steps
        self.position: tuple[State, int] = (self._state, steps)  # after the last complete line
        self._pending = b""
        self._long = Line(0.0, 0, b"")  # what was read of a line that does not fit

    def feed(self, data: bytes) -> list[Line]:
        """Read on. Returns the lines that are complete now."""
        *whole, self._pending = (self._pending + data).split(b"\n")
        lines = self._read([line + b"\n" for line in whole])
        if lines:
            self.position = (self._state, self._steps)
        if len(self._pending) > BLOCK:
            (bits,) = self._bits([self._pending])
            self._long = self._join(bits, self._pending)
            self._pending = b""
        return lines

    def end(self) -> list[Line]:
        """The input is over. Returns the last line where it has no end of its own."""
        rest, self._pending = self._pending, b""
        lines = self._read([rest]) if rest or self._long.size else []
        self.position = (self._state, self._steps)
        return lines

    def _read(self, lines: list[bytes]) -> list[Line]:
        read = []
        for bits, line in zip(self._bits(lines), lines, strict=True):
            read.append(self._join(bits, line))
            self._long = Line(0.0, 0, b"")
        return read

    def _join(self, bits: float, line: bytes) -> Line:
        """What is known of the line so far and what was read of it now."""
        text = (self._long.text + line.removesuffix(b"\n"))[:BLOCK]
        return Line(self._long.bits + bits, self._long.size + len(line), text)

    def _bits(self, texts: list[bytes]) -> list[float]:
        """The surprise of each text, each following on the one before."""
        tokens = [self.encode(text) for text in texts]
        ids = torch.tensor([[i for line in tokens for i in line]], dtype=torch.int64)
        device = next(self.model.parameters()).device
        state, previous = self._state
        bits: list[Tensor] = []
        for piece in ids.split(PIECE, 1):
            if piece.shape[1]:
                surprise, previous, state = self.model.surprise(piece.to(device), state, previous)
                bits.append(surprise[0].double().cpu())
        self._state, self._steps = (state, previous), self._steps + ids.shape[1]
        sums = torch.cat(bits).split([len(line) for line in tokens]) if bits else [torch.zeros(1)] * len(texts)
        return [float(x.sum()) for x in sums]


def blocks(descriptor: int, patience: float = SAVE_SECONDS) -> Iterator[bytes | None]:
    """What a file descriptor holds, as it comes; None when nothing came for `patience` seconds."""
    while True:
        if not select.select([descriptor], [], [], patience)[0]:
            yield None
        elif data := os.read(descriptor, BLOCK):
            yield data
        else:
            return


def stream(
    model: Any,
    encode: Callable[[bytes], list[int]],
    descriptor: int,
    write: Callable[[list[Line]], None],
    path: str | os.PathLike[str] | None = None,
) -> int:
    """Read lines from a file descriptor until it ends, hand them to `write`, and keep the state in the file `path`.

    The state is restored from the file where there is one, saved every few seconds, and saved however this ends: the
    pipe is over, the reader has gone, or someone stopped it.

    Returns:
        The tokens read, those of earlier runs included.

    Raises:
        ValueError: the file holds the state of another model (both hashes are given), or is damaged.
    """
    state, steps = (None, 0)
    if path is not None and pathlib.Path(path).exists():
        state, steps = states.load(path, model)
    reader = Reader(model, encode, state, steps)
    saved, last = reader.position, time.monotonic()

    def save() -> None:
        nonlocal saved, last
        if path is not None and reader.position is not saved:
            states.save(path, reader.position[0], model, reader.position[1])
            saved = reader.position
        last = time.monotonic()

    try:
        for data in blocks(descriptor):
            if data is not None:
                write(reader.feed(data))
            if data is None or time.monotonic() - last > SAVE_SECONDS:
                save()
        write(reader.end())
    finally:
        save()
    return reader.position[1]
