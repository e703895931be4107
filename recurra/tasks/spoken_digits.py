"""Digits as a synthesiser without a voice would say them: spectra of resonances and noise. No one has spoken here."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, generator, rows

BANDS = np.linspace(150, 5500, 24)  # Hz, the middle of each band of a frame
FLOOR = 0.02  # of a band in silence


class Sound(NamedTuple):
    """A speech sound: frames it lasts, its three resonances at the beginning and the end (Hz), voice and noise."""

    frames: int
    begins: tuple[float, float, float]
    ends: tuple[float, float, float]
    voice: float = 1.0
    noise: float = 0.0
    hiss: float = 4000.0  # the middle of the noise, Hz


def _vowel(frames: int, *resonances: int) -> Sound:
    (a, b, c), (d, e, f) = resonances[:3], resonances[-3:]
    return Sound(frames, (a, b, c), (d, e, f))


NEUTRAL = (500.0, 1500.0, 2500.0)
# vowels after the means of Peterson and Barney 1952, https://doi.org/10.1121/1.1906875 (men); the rest is rough
SOUNDS = {
    "IY": _vowel(4, 270, 2290, 3010), "IH": _vowel(3, 390, 1990, 2550), "EH": _vowel(3, 530, 1840, 2480),
    "AH": _vowel(3, 640, 1190, 2390), "AO": _vowel(4, 570, 840, 2410), "UW": _vowel(5, 300, 870, 2240),
    "OW": _vowel(4, 570, 840, 2410, 400, 800, 2240), "EY": _vowel(4, 480, 1950, 2600, 300, 2250, 3000),
    "AY": _vowel(5, 730, 1090, 2440, 300, 2200, 2900), "R": _vowel(2, 420, 1300, 1600),
    "W": _vowel(2, 300, 610, 2200), "N": Sound(3, (280, 1700, 2600), (280, 1700, 2600), 0.4),
    "V": Sound(2, (300, 1100, 2300), (300, 1100, 2300), 0.4, 0.15, 4500),
    "Z": Sound(2, NEUTRAL, NEUTRAL, 0.2, 0.6, 4800),
    "S": Sound(3, NEUTRAL, NEUTRAL, 0, 0.9, 4800), "F": Sound(3, NEUTRAL, NEUTRAL, 0, 0.3, 4200),
    "TH": Sound(3, NEUTRAL, NEUTRAL, 0, 0.25, 5200), "T": Sound(1, NEUTRAL, NEUTRAL, 0, 0.8, 4000),
    "K": Sound(1, NEUTRAL, NEUTRAL, 0, 0.8, 2000), ".": Sound(1, NEUTRAL, NEUTRAL, 0),
}  # fmt: skip
DIGITS = [
    "Z IY R OW",
    "W AH N",
    ". T UW",
    "TH R IY",
    "F AO R",
    "F AY V",
    "S IH . K S",
    "S EH V AH N",
    "EY . T",
    "N AY N",
]
PAUSE = 2  # frames of silence before each digit and at the end, on average
LONGEST = 2 * (PAUSE + max(sum(SOUNDS[x].frames for x in digit.split()) for digit in DIGITS))


class SpokenDigits(Task):
    """Hear digits said one after another, and write them down: `(B, T, 24)` to labels 1 (zero) to 10 (nine).

    Frames are of about 30 ms: logarithms of what 24 bands hold, synthesised from each digit's speech sounds as
    resonances over a floor, with noise where a sound hisses. Each row has a speaker of its own (all resonances 0.85 to
    1.2 times as high, all sounds 0.7 to 1.4 times as long), sounds run into each other, and every band is noisy. It
    stands in for speech and is far easier. Nothing says which frame is which digit; that is connectionist temporal
    classification, Graves et al. 2006, https://doi.org/10.1145/1143844.1143891. A string of digits is in the test by a
    hash. The measure is the errors (labels left out, added or mistaken) a label; who says nothing has 1.

    Args:
        digits: the most of a row; as many as surely fit its length.
        noise: the standard deviation of every band of every frame, where the floor of silence is at -3.9 and a
            resonance at about 0.
    """

    head = "ctc"
    measure = "label errors"
    lower_is_better = True

    def __init__(self, *, digits: int = 4, noise: float = 0.5) -> None:
        if digits < 2 or noise < 0:
            raise SourceError(f"digits is {digits} and noise is {noise}: they must be at least 2 and 0")
        self.config = {"task": "spoken_digits", "digits": digits, "noise": noise}
        self.digits, self.noise = digits, noise

    @property
    def chance(self) -> float:
        return 1.0

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": len(BANDS), "labels": len(DIGITS)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        most = min(self.digits, (length - 2 * PAUSE) // LONGEST)
        if most < 2:
            raise SourceError(f"two digits take at least {2 * LONGEST + 2 * PAUSE} steps, not {length}")
        strings = rows(lambda random, size, _: _draw(random, size, most), split, index, size, length, seed)
        # its own numbers: how digits are said is not which they are
        random = generator(split, index, size, length, seed)
        inputs, valid = torch.zeros(size, length, len(BANDS)), torch.zeros(size, length, dtype=torch.bool)
        for row, string in enumerate(strings):
            frames = torch.from_numpy(self._said(random, string[string > 0])).float()
            inputs[row, : len(frames)], valid[row, : len(frames)] = frames, True
        return Batch(inputs, torch.from_numpy(strings), None, begins(size, length) if carried else None, valid)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Nats a label."""
        heard, said = _heard(outputs, batch), (batch.targets > 0).sum(1)
        log_shares = outputs.log_softmax(-1).transpose(0, 1)
        nats = F.ctc_loss(log_shares, batch.targets, heard, said, blank=0, reduction="sum")
        return nats / said.sum()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        errors = labels = 0
        likeliest = outputs.argmax(-1).tolist()
        for path, target, frames in zip(
            likeliest, batch.targets.tolist(), _heard(outputs, batch).tolist(), strict=True
        ):
            before = [0, *path[: frames - 1]]
            said = [x for x, last in zip(path[:frames], before, strict=True) if x and x != last]
            true = [x for x in target if x]
            errors, labels = errors + distance(said, true), labels + len(true)
        return float(errors), float(labels)

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("nobody knows where in the noise a digit is")

    def _said(self, random: np.random.Generator, string: np.ndarray) -> np.ndarray:
        """The frames of one speaker saying some digits, `(T, 24)`."""
        height, pace = random.uniform(0.85, 1.2), random.uniform(0.7, 1.4)
        spectra = [_silence(random)]
        for label in string:
            spectra += [_spectrum(SOUNDS[name], height, pace, random) for name in DIGITS[label - 1].split()]
            spectra.append(_silence(random))
        joined = np.concatenate(spectra)
        # sounds run into each other
        padded = np.pad(joined, ((1, 1), (0, 0)), mode="edge")
        smooth = 0.25 * padded[:-2] + 0.5 * joined + 0.25 * padded[2:]
        return np.log(smooth) + random.normal(0, self.noise, smooth.shape)


def distance(one: list[int], other: list[int]) -> int:
    """How many labels must be left out, put in or changed to make one list of the other (Levenshtein 1966)."""
    costs = list(range(len(other) + 1))
    for i, x in enumerate(one, 1):
        diagonal, costs[0] = costs[0], i
        for j, y in enumerate(other, 1):
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, diagonal + (x != y))
    return costs[-1]


def _heard(outputs: Tensor, batch: Batch) -> Tensor:
    """How many frames each row has."""
    return torch.full((len(outputs),), outputs.shape[1]) if batch.valid is None else batch.valid.sum(1)


def _draw(random: np.random.Generator, size: int, most: int) -> np.ndarray:
    """Strings of two digits or more, filled up with zeros."""
    strings = random.integers(1, len(DIGITS) + 1, (size, most))
    return strings * (np.arange(most) < random.integers(2, most + 1, (size, 1)))


def _silence(random: np.random.Generator) -> np.ndarray:
    return np.full((int(random.integers(1, 2 * PAUSE)), len(BANDS)), FLOOR)


def _spectrum(sound: Sound, height: float, pace: float, random: np.random.Generator) -> np.ndarray:
    """What the bands hold while a sound lasts."""
    frames = max(1, round(sound.frames * pace * random.uniform(0.85, 1.15)))
    along = np.linspace(0, 1, frames)[:, None]
    resonances = height * ((1 - along) * np.array(sound.begins) + along * np.array(sound.ends))
    peaks = 1 / (1 + ((BANDS - resonances[..., None]) / 150) ** 2)
    voiced = sound.voice * (peaks * np.array([1, 0.7, 0.4])[:, None]).sum(1)
    return FLOOR + voiced + sound.noise * np.exp(-(((BANDS - sound.hiss) / 900) ** 2))
