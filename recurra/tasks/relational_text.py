"""Relational text: facts about who is whose parent, in any order; the answer is nowhere, it is put together."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, asked_at_the_end, certain
from recurra.tasks.draws import rows

NO, YES, BLANK, ASK, STOP, PARENT, CHILD, FIRST = range(8)  # then relations, then names


class RelationalText(Choices):
    r"""Read facts such as "Ann is parent of Bob", then say whether one person is so many generations above another.

    .. math::
        g(a) - g(b) = 1 \;\text{for each fact "a is parent of b"} \qquad y = [\,g(s) - g(t) = \text{claim}\,]

    A task of Chen 2026, https://arxiv.org/abs/2603.21676, after CLUTRR (Sinha et al. 2019,
    https://arxiv.org/abs/1908.06177): a chain of K facts leads up to a common ancestor and down again, all names are
    different, and the facts are shuffled among others about other people. A longer chain takes more steps one after
    another. Unlike the paper, each fact is told from either side ("Bob is child of Ann"), so that counting words tells
    nothing, and a wrong claim is any other that a chain of K facts could make true: true and wrong claims are alike.
    Both answers are equally likely, and chance is exactly 1/2.

    Tokens: the answers no and yes, a blank, of which as many stand in front as there is room, ?, a full stop, parent,
    child, the claims (from -`most` to `most` generations), and the names. A row is `a parent b .` or `b child a .` for
    every fact, then `s claim t ?`; the answer is read at the row's end.

    Args:
        least: the fewest facts of the chain (K); they are uniform.
        most: the most facts of the chain.
        others: facts about other people.
        names: that there are.
        claims: the most generations that there is a word for; 0: as many as `most`.

    Raises:
        SourceError: the chains are not in order, there are too few names or words, or a row is too short.
    """

    def __init__(self, *, least: int = 1, most: int = 5, others: int = 3, names: int = 20, claims: int = 0) -> None:
        words, needed = claims or most, most + 1 + 2 * others
        if not 1 <= least <= most or others < 0:
            raise SourceError(
                f"least is {least}, most {most}, others {others}: at least 1 fact, in order, and 0 others"
            )
        if names < needed:
            raise SourceError(f"names is {names}: chains of {most} with {others} others need at least {needed}")
        if words < most:
            raise SourceError(f"claims is {claims}: chains of {most} need at least as many")
        self.config = {
            "task": "relational_text", "least": least, "most": most, "others": others, "names": names, "claims": claims,
        }  # fmt: skip
        self.least, self.most, self.others, self.names, self.claims = least, most, others, names, words

    @property
    def chance(self) -> float:
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": self._person(self.names)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        needed = 4 * (self.most + self.others + 1)
        if length < needed:
            raise SourceError(f"relational_text of {self.most} facts takes at least {needed} steps, not {length}")
        content = rows(self._draw, split, index, size, length, seed)
        return asked_at_the_end(content, [self._follows(row) for row in content], carried)

    def solve(self, batch: Batch) -> Tensor:
        # generations as the potential of which the facts are the differences: least squares over the names
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            told = [token for token in row if token != BLANK]
            facts, (one, claim, other, _) = np.array(told[:-4]).reshape(-1, 4), told[-4:]
            matrix = np.zeros((len(facts), self._person(self.names)))
            matrix[np.arange(len(facts)), facts[:, 0]] = 1
            matrix[np.arange(len(facts)), facts[:, 2]] = -1
            generation = np.linalg.lstsq(matrix, np.where(facts[:, 1] == PARENT, 1.0, -1.0), rcond=None)[0]
            answer[-1] = round(float(generation[one] - generation[other])) == claim - self._claim(0)
        return certain(answers, self._person(self.names))

    def _claim(self, generations: int) -> int:
        """The word for so many generations above."""
        return FIRST + self.claims + generations

    def _person(self, number: int) -> int:
        """A name."""
        return FIRST + 2 * self.claims + 1 + number

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        tokens = np.full((size, length), BLANK)
        for row, facts in zip(tokens, random.integers(self.least, self.most + 1, size).tolist(), strict=True):
            people = (self._person(0) + random.permutation(self.names)).tolist()
            up = int(random.integers(facts + 1))
            pairs = [(people[i], people[i + 1], i < up) for i in range(facts)]
            rest = people[facts + 1 :]
            pairs += [(rest[2 * i], rest[2 * i + 1], random.integers(2)) for i in range(self.others)]
            told = [_told(a, b, bool(parent), bool(random.integers(2))) for a, b, parent in pairs]
            # one of the other places where the chain could have turned, or its own
            turn = up if random.integers(2) else (up + int(random.integers(1, facts + 1))) % (facts + 1)
            text = [token for number in random.permutation(len(told)) for token in told[number]]
            text += [people[0], self._claim(2 * turn - facts), people[facts], ASK]
            row[-len(text) :] = text
        return tokens

    def _follows(self, row: np.ndarray) -> bool:
        """Whether a row's claim follows from its facts: a walk from one person to the other."""
        *facts, one, claim, other, _ = row[row != BLANK].tolist()
        known: dict[int, list[tuple[int, int]]] = {}
        for a, word, b, _ in zip(*(facts[i::4] for i in range(4)), strict=True):
            below = 1 if word == PARENT else -1
            known.setdefault(a, []).append((b, below))
            known.setdefault(b, []).append((a, -below))
        below, todo = {one: 0}, [one]
        while todo:
            here = todo.pop()
            for person, step in known.get(here, []):
                if person not in below:
                    below[person] = below[here] + step
                    todo.append(person)
        return below[other] == claim - self._claim(0)


def _told(a: int, b: int, parent: bool, turned: bool) -> tuple[int, int, int, int]:
    """A fact from one side or the other."""
    return (b, CHILD if parent else PARENT, a, STOP) if turned else (a, PARENT if parent else CHILD, b, STOP)
