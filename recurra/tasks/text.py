"""Text: any file or folder, as bytes. What is scored is bits per byte, which no choice of tokens can flatter."""

import hashlib
import math
import pathlib
from typing import NamedTuple

import numpy as np
import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.codec import codec as codec
from recurra.tasks.corpus import STANDARD_LIBRARY, Document, documents
from recurra.tasks.draws import carried as ring, generator, spread
from recurra.tasks.language import Language


class Text(Language):
    """Say what comes next in a text: every next byte, or every next token of a tokenizer.

    Of a folder, files are held out for testing: those whose name's hash falls into the fraction `held_out`, so a file
    stays on its side when others come or go, and at least one file is on each side. Of a single file, the tail is held
    out. Rows that are not carried are windows anywhere in the documents put end to end; carried rows go round the
    documents, with a reset where one begins, and its first token, which nothing before it could tell, does not count.

    Args:
        source: a text file, a folder, or "stdlib" (see `recurra.tasks.corpus.documents`).
        tokenizer: a `tokenizer.json`; None: bytes.
        held_out: the fraction that is for testing, between 0 and 1.

    Raises:
        SourceError: there is no text, too little of it, or a tokenizer that does not keep it.
    """

    def __init__(self, source: str, *, tokenizer: str | None = None, held_out: float = 0.1) -> None:
        if not 0 < held_out < 1:
            raise SourceError(f"held_out is {held_out}: it must lie between 0 and 1")
        super().__init__(tokenizer)
        self.source = source if source == STANDARD_LIBRARY else str(pathlib.Path(source).resolve())
        self.config = {"task": "text", "source": self.source, "tokenizer": self.tokenizer, "held_out": held_out}
        train, test = _divide(documents(self.source), held_out)
        self.streams = {"train": self._stream(train), "test": self._stream(test)}
        for split, stream in self.streams.items():
            if len(stream.tokens) < 2:
                raise SourceError(f"{source} is too short: it leaves {len(stream.tokens)} tokens to {split} on")

    @property
    def chance(self) -> float:
        """All tokens equally likely: 8 bits per byte for bytes."""
        tokens = self.streams["test"].tokens
        return math.log2(self.codec.vocabulary) * len(tokens) / len(self.contents("test"))

    def contents(self, split: str) -> bytes:
        """All bytes of a split, documents end to end: what `recurra.tasks.reference` measures."""
        tokens = self.streams[split].tokens
        return tokens.tobytes() if self.codec.tokenizer is None else self.decode(tokens.tolist())

    def prompt(self, length: int) -> Int[Tensor, "1 T"]:
        """Where the held-out text begins."""
        return self.batch("test", 0, 1, length, 0).inputs

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        """See `Task.batch`. Test windows do not overlap, and are the same for every seed.

        Raises:
            SourceError: the split is shorter than one row.
        """
        random = generator(split, 0 if carried else index, size, length, seed)
        tokens, starts = self.streams[split]
        if len(tokens) < length + 1:
            raise SourceError(
                f"{self.source} is too short for one sequence: it leaves {len(tokens)} tokens to {split} on, and "
                f"{length} steps take {length + 1}: use a longer text or a smaller length"
            )
        if carried:
            first = 0 if split == "test" else int(random.integers(len(tokens)))
            positions = ring(index, size, length, len(tokens), first)
            following = (positions + 1) % len(tokens)
            return Batch(
                _tokens(tokens[positions]),
                _tokens(tokens[following]),
                _unless(~_member(following, starts)),
                _unless(_member(positions, starts), nothing=False),
            )
        if split == "train":
            first = random.integers(0, len(tokens) - length, size)
        else:
            first = length * spread(index, size, (len(tokens) - 1) // length)
        rows = _tokens(tokens[first[:, None] + np.arange(length + 1)])
        return Batch(rows[:, :-1], rows[:, 1:])

    def _stream(self, several: list[Document]) -> "Stream":
        """Documents as tokens, end to end. One document of bytes stays where it is, which may be on the disk."""
        if self.codec.tokenizer is None:
            pieces = [document.data for document in several]
        else:
            kind = np.uint16 if self.codec.vocabulary <= 2**16 else np.int32
            pieces = [np.array(self.codec.encode(document.data.tobytes()), kind) for document in several]
        starts = np.cumsum([0, *map(len, pieces)])[:-1]
        return Stream(pieces[0] if len(pieces) == 1 else np.concatenate(pieces), starts)


class Stream(NamedTuple):
    """The tokens of one split, and where its documents begin."""

    tokens: np.ndarray
    starts: np.ndarray


def _divide(several: list[Document], held_out: float) -> tuple[list[Document], list[Document]]:
    """Documents for training and for testing."""
    if len(several) == 1:
        name, data = several[0]
        cut = len(data) - round(held_out * len(data))
        return [Document(name, data[:cut])], [Document(name, data[cut:])]
    place = {document.name: _place(document.name) for document in several}
    first, last = min(place.values()), max(place.values())
    # the lowest is always tested on, and the highest never
    bound = min(max(held_out, np.nextafter(first, 1)), last)
    return [d for d in several if place[d.name] >= bound], [d for d in several if place[d.name] < bound]


def _place(name: str) -> float:
    """Where a file's name falls between 0 and 1: the same everywhere, for ever."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6]) / 2**48


def _member(positions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which positions are document starts (in order, the first is 0)."""
    return starts[np.searchsorted(starts, positions, "right") - 1] == positions


def _unless(flags: np.ndarray, nothing: bool = True) -> Tensor | None:
    """The flags, or None where all are what None means."""
    return None if (flags == nothing).all() else torch.from_numpy(flags)


def _tokens(tokens: np.ndarray) -> Int[Tensor, "B T"]:
    return torch.from_numpy(tokens.astype(np.int64))
