"""The sizes that layers are measured at: few, and the same for all, so that every number has a neighbour."""

import re
from typing import NamedTuple


class Size(NamedTuple):
    """A batch of sequences: B, T, D."""

    batch: int
    steps: int
    width: int

    def __str__(self) -> str:
        return f"B {self.batch}, T {self.steps}, D {self.width}"


SIZES = {"small": Size(8, 512, 128), "medium": Size(8, 512, 256), "long": Size(1, 16384, 128)}
# time is measured over these, one sequence at a time: linear in T is the same cost per token at all of them
LENGTHS = tuple(1024 * 2**i for i in range(7))
GROWTH = "growth"


def size(name: str) -> Size:
    """A named size, or one written 8x512x128.

    Raises:
        ValueError: it is neither.
    """
    if name in SIZES:
        return SIZES[name]
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", name):
        raise ValueError(f"there is no size {name!r}: give {', '.join(SIZES)}, {GROWTH}, or BATCHxSTEPSxWIDTH")
    return Size(*map(int, name.split("x")))
