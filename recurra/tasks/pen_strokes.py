"""Letters drawn by a pen: a text, and then the moves that write it. The letters are drawn by rule, not by hands."""

import functools
import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from recurra.shapes import Float, Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.draws import begins, generator, rows

Points = list[tuple[float, float]]
SPACING = 0.25  # between two points of a stroke, in heights of a letter; a move of 1 is this long
GAP = 0.35  # between two letters
NUMBERS = 6  # of each component of the density: see `density`


def arc(x: float, y: float, across: float, up: float, start: float, stop: float) -> Points:
    """Points on an ellipse about (x, y), from one angle to another, in turns."""
    angles = np.linspace(start, stop, 25) * 2 * math.pi
    return [(x + across * math.cos(a), y + up * math.sin(a)) for a in angles]


# the strokes of each letter, in a box of height 1
GLYPHS: dict[str, list[Points]] = {
    "c": [arc(0.4, 0.5, 0.4, 0.5, 0.12, 0.88)],
    "i": [[(0.1, 0.6), (0.1, 0.0)], [(0.1, 0.9), (0.12, 1.0)]],
    "l": [[(0.1, 1.0), (0.1, 0.0)]],
    "n": [[(0.0, 0.0), (0.0, 0.7), *arc(0.3, 0.4, 0.3, 0.3, 0.5, 0.0), (0.6, 0.0)]],
    "o": [arc(0.35, 0.5, 0.35, 0.5, 0.25, 1.25)],
    "s": [[*arc(0.3, 0.75, 0.3, 0.25, 0.1, 0.75), *arc(0.3, 0.25, 0.3, 0.25, 0.25, -0.4)]],
    "t": [[(0.3, 1.0), (0.3, 0.0)], [(0.0, 0.7), (0.6, 0.7)]],
    "u": [[(0.0, 0.8), *arc(0.3, 0.3, 0.3, 0.3, 0.5, 1.0), (0.6, 0.8)]],
    "v": [[(0.0, 0.9), (0.3, 0.0), (0.6, 0.9)]],
    "z": [[(0.0, 0.9), (0.6, 0.9), (0.0, 0.0), (0.6, 0.0)]],
}
LETTERS = "".join(GLYPHS)


class PenStrokes(Task):
    r"""Write a text: say at every move of the pen how likely every next one is.

    A row is a text of some letters and then the moves that write it, as the model `handwriting` reads them: (c, 0, 0,
    0) for letter c, then (0, dx, dy, lift), beginning with a move of nothing. Moves are in quarters of a letter's
    height; lift is 1 where a stroke ends. Each row has a hand of its own (size 0.8 to 1.2, slant -0.3 to 0.3), and the
    pen trembles. It is the task of Graves 2013, https://arxiv.org/abs/1308.0850, on ten letters that are drawn by rule.
    A text is in the test by a hash. The measure is nats a move; chance is one normal density of all moves, without a
    memory.

    Args:
        text: the longest text; a row takes as many letters as surely fit its length, at most this.
        tremor: the standard deviation of every point, in heights of a letter.
    """

    head = "handwriting"
    measure = "nats a move"
    lower_is_better = True

    def __init__(self, *, text: int = 4, tremor: float = 0.02) -> None:
        if text < 2 or tremor <= 0:
            raise SourceError(f"text is {text} and tremor is {tremor}: they must be at least 2 and greater than 0")
        self.config = {"task": "pen_strokes", "text": text, "tremor": tremor}
        self.text, self.tremor = text, tremor

    @property
    def chance(self) -> float:
        batch = self.batch("test", 0, 256, 128, 0)
        assert batch.scored is not None
        moves = batch.targets[batch.scored].double()
        spread = torch.linalg.det(torch.cov(moves[:, :2].T))
        lift = moves[:, 2].mean()
        lifted = -lift * lift.log() - (1 - lift) * (1 - lift).log()
        return float(math.log(2 * math.pi) + 1 + spread.log() / 2 + lifted)

    def model_arguments(self) -> dict[str, Any]:
        return {"letters": len(LETTERS), "text": self.text}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        most = min(self.text, length // (LONGEST + 1))
        if most < 2:
            raise SourceError(f"a text of two letters takes at least {2 * (LONGEST + 1)} steps, not {length}")
        texts = rows(lambda random, size, _: _draw(random, size, most), split, index, size, length, seed)
        # its own numbers: how a text is written is not what it is
        random = generator(split, index, size, length, seed)
        inputs, targets = torch.zeros(size, length, 4), torch.zeros(size, length, 3)
        valid, scored = (torch.zeros(size, length, dtype=torch.bool) for _ in range(2))
        for row, text in enumerate(texts):
            letters = text[text > 0]
            moves = torch.from_numpy(self._written(random, letters)).float()
            start, stop = len(letters), len(letters) + len(moves)
            inputs[row, :start, 0] = torch.from_numpy(letters).float()
            inputs[row, start + 1 : stop, 1:] = moves[:-1]
            targets[row, start:stop] = moves
            scored[row, start:stop] = True
            valid[row, :stop] = True
        return Batch(inputs, targets, scored, begins(size, length) if carried else None, valid)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        assert batch.scored is not None
        return -density(outputs[batch.scored], batch.targets[batch.scored]).mean()

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        assert batch.scored is not None
        nats = -density(outputs[batch.scored].double(), batch.targets[batch.scored].double())
        return float(nats.sum()), float(len(nats))

    def solve(self, batch: Batch) -> Tensor:
        raise NotImplementedError("nobody knows where a trembling pen goes")

    def _written(self, random: np.random.Generator, letters: np.ndarray) -> np.ndarray:
        """The moves (dx, dy, lift) of a text in one hand."""
        size, slant, at, points = random.uniform(0.8, 1.2), random.uniform(-0.3, 0.3), 0.0, []
        for letter in letters:
            strokes = _glyph(LETTERS[letter - 1])
            for stroke in strokes:
                lift = np.zeros((len(stroke), 1))
                lift[-1] = 1
                points.append(np.concatenate([stroke + np.array([at, 0]), lift], 1))
            at += max(stroke[:, 0].max() for stroke in strokes) + GAP
        drawn = np.concatenate(points)
        drawn[:, :2] += random.normal(0, self.tremor, (len(drawn), 2))
        drawn[:, 0] += slant * drawn[:, 1]
        drawn[:, :2] *= size / SPACING
        return np.concatenate([np.diff(drawn[:, :2], axis=0, prepend=np.zeros((1, 2))), drawn[:, 2:]], 1)


def density(outputs: Float[Tensor, "N O"], moves: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    r"""The log-density of moves (dx, dy, lift) under a mixture of normal densities and a coin.

    .. math::
        \log \textstyle\sum_m \pi_m \frac{\exp(-q_m / (2 (1 - \rho_m^2)))}
        {2 \pi \sigma_{m1} \sigma_{m2} \sqrt{1 - \rho_m^2}} + \log p(\text{lift}) \qquad
        q = z_1^2 + z_2^2 - 2 \rho z_1 z_2 \qquad z_i = (\Delta_i - \mu_i) / \sigma_i

    The outputs are, M each, log-weights, means across and up, log-deviations across and up and correlations before
    their tanh, and at the end the log-odds of lifting.
    """
    weights, across, up, wide, high, turn = outputs[:, :-1].chunk(NUMBERS, -1)
    one, two = (moves[:, :1] - across) * (-wide).exp(), (moves[:, 1:2] - up) * (-high).exp()
    # 1 - tanh^2, without the difference of two near ones
    rest = 2 * (math.log(2) - turn - F.softplus(-2 * turn))
    quadratic = one.square() + two.square() - 2 * turn.tanh() * one * two
    each = weights - quadratic * (-rest).exp() / 2 - math.log(2 * math.pi) - wide - high - rest / 2
    lift = F.binary_cross_entropy_with_logits(outputs[:, -1], moves[:, 2], reduction="none")
    return each.logsumexp(-1) - lift


@functools.cache
def _glyph(letter: str) -> list[np.ndarray]:
    """The strokes of a letter as points at equal distances."""
    strokes = []
    for points in GLYPHS[letter]:
        line = np.array(points)
        far = np.concatenate([[0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
        places = np.linspace(0, far[-1], max(2, round(far[-1] / SPACING) + 1))
        strokes.append(np.stack([np.interp(places, far, line[:, i]) for i in (0, 1)], 1))
    return strokes


LONGEST = max(sum(map(len, _glyph(letter))) for letter in LETTERS)  # moves of a letter


def _draw(random: np.random.Generator, size: int, most: int) -> np.ndarray:
    """Texts of two letters or more, filled up with zeros."""
    texts = random.integers(1, len(LETTERS) + 1, (size, most))
    return texts * (np.arange(most) < random.integers(2, most + 1, (size, 1)))
