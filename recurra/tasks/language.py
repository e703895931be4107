"""What tasks of text share: tokens that stand for bytes, and a score in bits per byte, whatever the tokens are."""

import abc
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch, Task
from recurra.tasks.choices import counted, cross_entropy
from recurra.tasks.codec import Codec


class Language(Task):
    """A task that asks at every step what token comes next.

    Args:
        tokenizer: a `tokenizer.json`; None: bytes.

    Raises:
        SourceError: the tokenizer cannot be used.
    """

    head = "language_model"
    measure = "bits per byte"
    lower_is_better = True

    def __init__(self, tokenizer: str | None) -> None:
        self.tokenizer = None if tokenizer is None else str(pathlib.Path(tokenizer).resolve())
        self.codec = Codec(self.tokenizer)
        self.bytes_of_token = self.codec.bytes_of_token

    @abc.abstractmethod
    def prompt(self, length: int) -> Int[Tensor, "1 T"]:
        """A piece of text, so long at most, to show how a model goes on from it."""

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.codec.vocabulary}

    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text."""
        return self.codec.encode(text)

    def decode(self, ids: Iterable[int] | Tensor) -> bytes:
        """The bytes of tokens."""
        return self.codec.decode(ids)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs, batch)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        _, targets = counted(outputs, batch)
        nats = float(cross_entropy(outputs.detach(), batch)) * len(targets)
        return nats / math.log(2), float(self.bytes_of_token[targets.cpu()].sum())

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("nobody knows the rule that text follows")
