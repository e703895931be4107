"""From what a network says at every frame to labels: all frames that say the same are one, and blanks are nothing.

Label 0 is the blank. Sequences are lists of whole numbers, without blanks.
"""

import itertools
import math

import torch

from recurra.checks import at_least
from recurra.shapes import Bool, Float, Tensor


def best_path(logits: Float[Tensor, "B T C"], valid: Bool[Tensor, "B T"] | None = None) -> list[list[int]]:
    """The labels of the likeliest path: the likeliest of each frame, joined (Graves et al. 2006)."""
    likeliest = logits.argmax(-1)
    if valid is not None:
        # a blank before a label or at the end changes nothing; between two frames no gap may stand
        order = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)
        likeliest = likeliest.masked_fill(~valid, 0).gather(1, order)
    return [[label for label, _ in itertools.groupby(row) if label] for row in likeliest.tolist()]


def prefix_beam(logits: Float[Tensor, "T C"], width: int = 8) -> tuple[list[int], float]:
    """The likeliest labels of one row that a search of some width finds, and their log-probability over all paths.

    Of every beginning two sums are kept, over its paths that end in a blank and over those that do not: only after a
    blank does the same label begin a second time. Graves 2012, https://arxiv.org/abs/1211.3711; Hannun et al. 2014,
    https://arxiv.org/abs/1408.2873. A search as wide as there are labellings finds the best of all.

    Raises:
        ValueError: `width` is less than 1.
    """
    at_least(1, width=width)
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in logits.double().log_softmax(-1).tolist():
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, label) in beams.items():
            _add(grown, prefix, 0, _sum(blank, label) + frame[0])
            if prefix:
                _add(grown, prefix, 1, label + frame[prefix[-1]])
            for new in range(1, len(frame)):
                before = blank if prefix and prefix[-1] == new else _sum(blank, label)
                _add(grown, (*prefix, new), 1, before + frame[new])
        best = sorted(grown, key=lambda prefix: _sum(*grown[prefix]), reverse=True)[:width]
        beams = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in best}
    found = max(beams, key=lambda prefix: _sum(*beams[prefix]))
    return list(found), _sum(*beams[found])


def _add(sums: dict[tuple[int, ...], list[float]], prefix: tuple[int, ...], place: int, value: float) -> None:
    """Count paths of one more kind to a beginning."""
    both = sums.setdefault(prefix, [-math.inf, -math.inf])
    both[place] = _sum(both[place], value)


def _sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)), where either may be nothing."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
