"""Nested logic: truth values under parentheses. How deep they nest is how many steps of thought an answer takes."""

import random
from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, asked_at_the_end, certain
from recurra.tasks.draws import rows

SYMBOLS = "FT&|!()_?"
FALSE, TRUE, AND, OR, NOT, OPEN, CLOSE, BLANK, ASK = range(len(SYMBOLS))
DUAL = (TRUE, FALSE, OR, AND)  # of the first four symbols


class NestedLogic(Choices):
    r"""Say whether an expression such as ``!(T&(F|!T))`` is true, when all of it has been read.

    .. math::
        e_0 = \text{T} \mid \text{F} \mid \text{!T} \mid \text{!F} \qquad
        e_d = [\text{!}] \text{(} e_{d-1} \circ e_{k} \text{)} \qquad k < d, \quad \circ \in \{\text{\&}, \text{|}\}

    A task of Chen 2026, https://arxiv.org/abs/2603.21676: what is innermost must be known first, so an expression of
    depth d takes d steps one after another, and more depth than was trained asks whether a model can think for longer.
    Which side is the deeper one is drawn; k is 0 half of the time, 1 a quarter, and so on. Unlike the paper, every
    operator has parentheses of its own, the answer is read at the row's end, after a question mark, and half of all
    expressions have each value and operator exchanged for the other: that negates what they say (De Morgan), so both
    answers are drawn equally often at every depth, and chance is exactly 1/2. (Of expressions of depth 0 and 1 there
    are few; those on one side of the split need not be balanced.)

    Going by the outermost operator alone (| says true, & false, ! before it the opposite) is right in 73 to 80 of a
    hundred at depths 2 to 8: less than that is no evidence of nesting understood.

    Tokens: F T & | ! ( ) and a blank, of which as many stand in front as there is room, and ?. Answers are F and T.

    Args:
        least: the lowest depth; depths are uniform.
        most: the highest depth.

    Raises:
        SourceError: the depths are not in order, or a row is too short for `most`.
    """

    def __init__(self, *, least: int = 3, most: int = 6) -> None:
        if not 0 <= least <= most:
            raise SourceError(f"least is {least} and most {most}: depths must be at least 0 and in order")
        self.config = {"task": "nested_logic", "least": least, "most": most}
        self.least, self.most = least, most

    @property
    def chance(self) -> float:
        return 0.5

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": len(SYMBOLS)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 4 * self.most + 2:
            raise SourceError(
                f"nested_logic of depth {self.most} takes at least {4 * self.most + 2} steps, not {length}"
            )
        content = rows(self._draw, split, index, size, length, seed)
        return asked_at_the_end(content, [_value(row) for row in content.tolist()], carried)

    def solve(self, batch: Batch) -> Tensor:
        # the innermost parentheses are replaced by what they say, until one value is left
        answers = torch.zeros_like(batch.inputs)
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            text, before = "".join(SYMBOLS[token] for token in row).strip("_?"), ""
            while text != before:
                before = text
                for said, means in _RULES:
                    text = text.replace(said, means)
            answer[-1] = SYMBOLS.index(text)
        return certain(answers, len(SYMBOLS))

    def _draw(self, generator: np.random.Generator, size: int, length: int) -> np.ndarray:
        # one call for all: numpy's are slow one by one
        draw = random.Random(int(generator.integers(2**63)))
        tokens = np.full((size, length), BLANK)
        for row in tokens:
            drawn = expression(draw, draw.randint(self.least, self.most), length - 1)
            row[-len(drawn) - 1 :] = [*drawn, ASK]
        return tokens


def expression(draw: random.Random, depth: int, room: int) -> list[int]:
    """Tokens of an expression with exactly this depth that has room; 4 depth + 1 tokens are always enough."""
    for _ in range(20):
        drawn = _nested(draw, depth)
        if len(drawn) <= room:
            break
    else:
        drawn = _narrow(draw, depth)
    return [DUAL[token] if token < NOT else token for token in drawn] if draw.random() < 0.5 else drawn


def _nested(draw: random.Random, depth: int) -> list[int]:
    if depth == 0:
        return [*[NOT] * (draw.random() < 0.5), draw.choice((FALSE, TRUE))]
    other = 0
    while other < depth - 1 and draw.random() < 0.5:
        other += 1
    sides = [_nested(draw, depth - 1), _nested(draw, other)]
    draw.shuffle(sides)
    return [*[NOT] * (draw.random() < 0.25), OPEN, *sides[0], draw.choice((AND, OR)), *sides[1], CLOSE]


def _narrow(draw: random.Random, depth: int) -> list[int]:
    """The shortest of this depth: every other side is one value."""
    if depth == 0:
        return [draw.choice((FALSE, TRUE))]
    sides = [_narrow(draw, depth - 1), _narrow(draw, 0)]
    draw.shuffle(sides)
    return [OPEN, *sides[0], draw.choice((AND, OR)), *sides[1], CLOSE]


def _value(row: list[int]) -> int:
    """What a row's expression says: read once, with what is still open on a stack."""
    stack: list[int] = []
    for token in row:
        if token in (BLANK, ASK):
            continue
        if token == CLOSE:
            left, operator, right = stack[-3:]
            del stack[-4:]
            token = left & right if operator == AND else left | right
        if token in (FALSE, TRUE):
            while stack and stack[-1] == NOT:
                stack.pop()
                token = 1 - token
        stack.append(token)
    return stack[0]


_RULES = [("!T", "F"), ("!F", "T")] + [
    (f"({a}{o}{b})", "FT"[("F" not in a + b) if o == "&" else ("T" in a + b)]) for a in "FT" for o in "&|" for b in "FT"
]
