"""Text from a pipe. A token is learned from when the next one is there."""

from typing import Any

import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.language import Language
from recurra.tasks.pipe import BLOCK, PIPE, Pipe, Piped

REMEMBERED = 128  # tokens, to go on from when the stream is over


class PipedText(Piped, Language):
    """Text as it comes: every next byte, or token.

    Args:
        pipe: where it comes from.
        tokenizer: a `tokenizer.json`, to which every line is a text of its own; None: bytes.

    Raises:
        SourceError: the tokenizer cannot be used.
    """

    def __init__(self, pipe: Pipe, *, tokenizer: str | None = None) -> None:
        Language.__init__(self, tokenizer)
        Piped.__init__(self, pipe, 1)
        self.config = {"task": "text", "source": PIPE, "tokenizer": self.tokenizer}
        self.tokens: list[int] = []
        self.line = b""  # begun, for a tokenizer, which must see all of it
        self.before: list[int] = []

    @property
    def said(self) -> str:
        return "the pipe holds text"

    @property
    def chance(self) -> float:
        """All tokens equally likely: 8 bits per byte for bytes, unknown for tokens, whose text is not kept."""
        return 8.0 if self.tokenizer is None else float("nan")

    @property
    def held(self) -> int:
        return len(self.tokens)

    def take(self, data: bytes, last: bool) -> None:
        if self.tokenizer is None:
            self.tokens += data
            return
        whole, end, rest = (self.line + data).rpartition(b"\n")
        self.line = b"" if last else rest
        if len(self.line) > BLOCK:
            raise SourceError(f"a line of the pipe has more than {BLOCK} bytes: a tokenizer takes shorter ones")
        self.tokens += self.encode(whole + end + (rest if last else b""))

    def give(self, steps: int) -> Batch:
        row = torch.tensor(self.tokens[: steps + 1], dtype=torch.int64)[None]
        self.before = (self.before + self.tokens[:steps])[-REMEMBERED:]
        del self.tokens[:steps]
        return Batch(row[:, :-1], row[:, 1:])

    def prompt(self, length: int) -> Int[Tensor, "1 T"]:
        """What was given last."""
        return torch.tensor([self.before[-length:]])

    def kept(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "line": list(self.line), "before": self.before}

    def restore(self, kept: dict[str, Any]) -> None:
        if "tokens" not in kept:
            raise SourceError("the run learns from a table and this pipe holds text: pipe the table's next rows in")
        self.tokens, self.line, self.before = kept["tokens"], bytes(kept["line"]), kept["before"]
