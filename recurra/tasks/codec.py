"""Between bytes and tokens, exactly. A score in bits per byte means something only if every byte is in some token.

So a tokenizer is used only if the pieces of its tokens, put end to end, are the text: those that lower the case, drop
blanks or add one in front are refused when they do.
"""

import importlib
import json
import os
from collections.abc import Iterable
from typing import Any

import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.base import SourceError


class Codec:
    """Encode text as tokens and back: a token a byte, or by a tokenizer of Hugging Face's `tokenizers`.

    Args:
        tokenizer: a `tokenizer.json`; None: bytes are tokens, and the vocabulary is 256.

    Raises:
        SourceError: the file is missing or is no tokenizer, or `tokenizers` is not installed.
    """

    def __init__(self, tokenizer: str | None = None) -> None:
        self.file = tokenizer
        self.tokenizer = None if tokenizer is None else _load(tokenizer)
        self.pieces = [bytes([i]) for i in range(256)] if self.tokenizer is None else _pieces(self.tokenizer)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.pieces)

    @property
    def bytes_of_token(self) -> Int[Tensor, " V"]:
        """How many bytes each token stands for."""
        return torch.tensor([len(piece) for piece in self.pieces])

    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text. A tokenizer sees what is not UTF-8 as the replacement character.

        Raises:
            SourceError: the tokenizer does not keep every byte of this text.
        """
        data = text.encode() if isinstance(text, str) else text
        if self.tokenizer is None:
            return list(data)
        whole = data.decode("utf-8", "replace")
        ids = self.tokenizer.encode(whole, add_special_tokens=False).ids
        if self.decode(ids) != whole.encode():
            raise SourceError(
                f"the tokenizer {self.file} changes the text ({whole[:20]!r} comes back as {self.decode(ids)[:20]!r}): "
                "use a byte-level one that adds no blank in front"
            )
        return ids

    def decode(self, ids: Iterable[int] | Tensor) -> bytes:
        """The bytes of tokens."""
        ids = ids.flatten().tolist() if isinstance(ids, Tensor) else ids
        return b"".join(self.pieces[i] for i in ids)


def codec(config: dict[str, Any]) -> Codec:
    """The codec of a text task's configuration, without reading its corpus."""
    return Codec(config.get("tokenizer"))


def _load(path: str) -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError as error:
        raise SourceError("a tokenizer needs the package tokenizers: pip install 'recurra[text]'") from error
    if not os.path.isfile(path):
        raise SourceError(f"the tokenizer {path} does not exist: give a tokenizer.json")
    try:
        return tokenizers.Tokenizer.from_file(path)
    # the package raises bare exceptions
    except Exception as error:
        raise SourceError(f"{path} is no tokenizer ({error}): give a tokenizer.json") from error


def _pieces(tokenizer: Any) -> list[bytes]:
    """The bytes of every token, by its number."""
    settings = json.loads(tokenizer.to_str())
    byte_level = "ByteLevel" in json.dumps([settings["pre_tokenizer"], settings["decoder"]])
    added = tokenizer.get_added_tokens_decoder()
    known = tokenizer.get_vocab(with_added_tokens=True)
    pieces = [b""] * (1 + max(known.values()))
    for text, number in known.items():
        if number in added:
            pieces[number] = text.encode()
        else:
            pieces[number] = _visible(text) if byte_level else _spelled(text)
    return pieces


def _spelled(text: str) -> bytes:
    """The bytes of a token that is written as itself: with a mark for the blank, or as one byte, "<0x0A>"."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


def _visible(text: str) -> bytes:
    """The bytes of a token that is written with a visible character for every byte."""
    return bytes(_BYTE_OF[character] for character in text)


def _byte_level_alphabet() -> list[str]:
    """The character that byte-level tokenizers write for each byte: itself if visible, else one from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


_BYTE_OF = {character: byte for byte, character in enumerate(_byte_level_alphabet())}
