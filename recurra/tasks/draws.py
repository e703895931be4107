"""Random choices that are functions of a batch's number, and the one rule that keeps train and test apart.

No iterator holds a position: whoever names the batch gets the batch. Made sequences are divided by a hash of their
whole content, so that no sequence can be on both sides whatever the seed; both sides are half of all there are.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from recurra.shapes import Bool, Tensor

SPLITS = ("train", "test")
TRIES = 200  # draws of a batch before giving up; each row has the wanted side with probability one half


def generator(split: str, index: int, size: int, length: int, seed: int) -> np.random.Generator:
    """The random numbers of one batch.

    Raises:
        ValueError: the split is neither "train" nor "test", or a number is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are train and test")
    if min(index, size, length, seed) < 0:
        raise ValueError(f"index {index}, size {size}, length {length} and seed {seed} must not be negative")
    return np.random.default_rng([SPLITS.index(split), index, size, length, seed])


def in_test(content: np.ndarray) -> np.ndarray:
    """Which rows of whole numbers `(B, ...)` are test sequences: a hash of the whole row decides. Shape `(B,)`."""
    flat = content.reshape(len(content), -1).astype(np.uint64)
    weights = _mixed(np.arange(1, flat.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    return (_mixed((flat + np.uint64(1)) @ weights) & np.uint64(1)).astype(bool)


def rows(
    draw: Callable[[np.random.Generator, int, int], np.ndarray],
    split: str,
    index: int,
    size: int,
    length: int,
    seed: int,
) -> np.ndarray:
    """`size` sequences of `split`: those of `draw(generator, size, length)` that are on its side.

    Raises:
        ValueError: no sequences of this length are on that side.
    """
    random = generator(split, index, size, length, seed)
    kept, found = [], 0
    for _ in range(TRIES):
        content = draw(random, size, length)
        kept.append(content[in_test(content) == (split == "test")])
        found += len(kept[-1])
        if found >= size:
            return np.concatenate(kept)[:size]
    raise ValueError(f"there are too few sequences of length {length} to divide into train and test: use longer ones")


def begins(size: int, length: int) -> Bool[Tensor, "B T"]:
    """Where rows of one made sequence each begin: at their first step, whatever was carried to them."""
    return (torch.arange(length) == 0).expand(size, length)


def ends(size: int, length: int) -> Bool[Tensor, "B T"]:
    """Where rows of one made sequence each end: at their last step."""
    return (torch.arange(length) == length - 1).expand(size, length)


def spread(index: int, size: int, count: int) -> np.ndarray:
    """Which of `count` windows batch `index` holds: each once before any again, and any first few lie far apart."""
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    numbers = (index * size + np.arange(size, dtype=np.int64)) % count
    return numbers * step % count


def carried(index: int, size: int, length: int, total: int, start: int) -> np.ndarray:
    """Positions `(B, T)` in a ring of `total` steps: rows begin evenly spaced and go round for ever."""
    first = start + np.arange(size, dtype=np.int64) * total // size + index * length
    return (first[:, None] + np.arange(length)) % total


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of x: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
