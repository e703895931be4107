"""State tracking: the words of a group. Who only adds up forgets the order, and in most groups the order is all.

S5 and A5 cannot be built from commutative groups; Z60 is one, the easy twin of A5 of the same size. A group is a list
of permutations here, so that one table of products serves every group, and the solver does without it.
"""

import functools
import itertools
from typing import Any

import numpy as np
import torch

from recurra.shapes import Int, Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows

Permutation = tuple[int, ...]
MOST = {"S": 5, "A": 6, "Z": 360}  # things that a group may move: a table of products has the square of its elements


class StateTracking(Choices):
    r"""Say at every step which element of a group the product of the elements so far is.

    .. math::  y_t = x_t \, y_{t-1} \qquad y_1 = x_1

    The word problem of a finite group; as a test of recurrences: Merrill, Petty and Sabharwal 2024, *The Illusion of
    State in State-Space Models*, https://arxiv.org/abs/2404.08819. The first element is uniform over the group and
    the later ones are drawn without a look at it, so the product is uniform at every step, and chance is exactly
    1 / elements. Tokens are the elements; 0 changes nothing.

    Args:
        group: "Sn", all permutations of n things; "An", the even ones; "Zn", a circle of n places: S5, A5, Z60.
        swaps: for "Sn": every element but the first swaps two neighbours: n - 1 moves to learn instead of n!.
        turns: every element but the first turns, either way, three neighbours ("An": 2 (n - 2) moves) or the circle, by
            one place ("Zn": 2 moves).
    """

    def __init__(self, *, group: str = "S5", swaps: bool = False, turns: bool = False) -> None:
        if swaps and not group.startswith("S"):
            raise SourceError(f"{group} is not made of swaps: leave swaps out, or take a group such as S5")
        if turns and not group.startswith(("A", "Z")):
            raise SourceError(f"{group} is not made of turns: leave turns out, or take a group such as A5")
        self.config = {"task": "state_tracking", "group": group, "swaps": swaps, "turns": turns}
        self.elements, self.number, self.product = _made(group)
        places = len(self.elements[0])
        size = 3 if group.startswith("A") else places
        moves = _swaps(places) if swaps else _turns(places, size) if turns else self.elements
        self.moves = np.array([self.number[move] for move in moves])

    @property
    def chance(self) -> float:
        return 1 / len(self.elements)

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": len(self.elements)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        words = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        place, targets = torch.zeros_like(words[:, 0]), []
        for element in words.unbind(1):
            place = self.product[element, place]
            targets.append(place)
        return Batch(words, torch.stack(targets, 1), reset=begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        # things that are really moved about: no table of products
        answers = torch.zeros_like(batch.inputs)
        for word, answer in zip(batch.inputs.tolist(), answers, strict=True):
            where = self.elements[0]
            for step, token in enumerate(word):
                moved = self.elements[token]
                where = tuple(moved[place] for place in where)
                answer[step] = self.number[where]
        return certain(answers, len(self.elements))

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        words = random.choice(self.moves, (size, length))
        words[:, 0] = random.integers(0, len(self.elements), size)
        return words


@functools.cache
def _made(group: str) -> tuple[list[Permutation], dict[Permutation, int], Int[Tensor, "N N"]]:
    """The elements of a group, the number of each, and the number of every product."""
    elements = _elements(group)
    number = {element: number for number, element in enumerate(elements)}
    return elements, number, torch.tensor([[number[_after(x, y)] for y in elements] for x in elements])


def _elements(group: str) -> list[Permutation]:
    """The permutations of a group, the one that changes nothing first."""
    kind, n = group[:1], group[1:]
    if kind not in MOST or not n.isdecimal() or not 3 <= int(n) <= MOST[kind]:
        raise SourceError(f"there is no group {group!r}: give S3 to S5, A3 to A6 or Z3 to Z360, such as S5")
    places = tuple(range(int(n)))
    if kind == "Z":
        return [places[shift:] + places[:shift] for shift in places]
    return [move for move in itertools.permutations(places) if kind == "S" or _even(move)]


def _after(x: Permutation, y: Permutation) -> Permutation:
    """First y, then x."""
    return tuple(x[place] for place in y)


def _even(move: Permutation) -> bool:
    """Whether an even number of swaps makes it: that of its pairs in the wrong order is even."""
    return sum(first > second for first, second in itertools.combinations(move, 2)) % 2 == 0


def _swaps(n: int) -> list[Permutation]:
    """Neighbours change places."""
    return [(*range(i), i + 1, i, *range(i + 2, n)) for i in range(n - 1)]


def _turns(n: int, size: int) -> list[Permutation]:
    """Some neighbours move on by one place, the one at the end to the other end."""
    ways = ((*range(1, size), 0), (size - 1, *range(size - 1)))
    return [
        (*range(i), *(i + place for place in way), *range(i + size, n)) for i in range(n - size + 1) for way in ways
    ]
