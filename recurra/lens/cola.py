"""Skip a layer or loop it: is the order in which a stack's layers were trained the best one for this text?

A program is a list of layers, run in that order. The tree of programs is searched without labels: what is asked of one
is how well it foretells the very text that it reads, or how near it stays to the whole stack.
"""

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from recurra.models.backbone import through
from recurra.shapes import Float, Int, Tensor

Program = tuple[int, ...]
Reward = Callable[[Float[Tensor, "B T V"], Int[Tensor, "B T"]], float]


class Found(NamedTuple):
    """A program and what it got."""

    program: Program
    reward: float


@torch.no_grad()
def run(model: Any, tokens: Int[Tensor, "B T"], program: Program) -> Float[Tensor, "B T V"]:
    """The logits of a language model whose blocks run in this order; each visit begins from its block's own start.

    `tuple(range(depth))` is the model itself.

    Raises:
        ValueError: the program names a layer that there is not.
    """
    blocks = model.backbone.stack
    if not all(0 <= layer < len(blocks) for layer in program):
        raise ValueError(f"the program is {program}: layers are numbered from 0 to {len(blocks) - 1}")
    chosen = [blocks[layer] for layer in program]
    states = tuple(block.mixer.initial_state(len(tokens)) for block in chosen)
    x, _ = through(chosen, model.embedding(tokens), states, None)
    return model.read(model.backbone.norm(x))


def likelihood(logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"]) -> float:
    """How well the text was foretold: the mean log probability of each token after the first, in nats."""
    said = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])
    return said.mean().item()


def agreement(whole: Float[Tensor, "B T V"]) -> Reward:
    """A reward for staying near the logits of the whole stack: less their divergence at the last token, in nats."""
    old = whole[:, -1].float().log_softmax(-1)

    def reward(logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"]) -> float:
        new = logits[:, -1].float().log_softmax(-1)
        return -(old.exp() * (old - new)).sum(-1).mean().item()

    return reward


def search(
    model: Any,
    tokens: Int[Tensor, "B T"],
    *,
    reward: Reward = likelihood,
    budget: int = 200,
    segment: int = 2,
    most: int = 2,
    penalty: float = 0.0,
    exploration: float = 0.1,
    seed: int = 0,
) -> list[Found]:
    r"""The best programs for a text, one of each length that pays: the first is the shortest, the last the best.

    .. math::
        \pi = (i_1 \dots i_K) \qquad R(\pi) = \text{reward} - \text{penalty} \cdot K / \text{depth} \qquad
        \text{next} = \arg\max_c \bar R_c + e \sqrt{\ln n / n_c}

    Going up the stack, a layer is skipped, run, or, alone or with the next ones, run several times. Monte Carlo tree
    search chooses which programs to try, with rewards scaled to what was seen; what is known in full is not visited
    again, so that a budget of as many programs as there are finds the best. The whole stack is always tried.

    Chains of layers: Li et al. 2025, https://arxiv.org/abs/2507.07996; programs of layers: Li et al. 2026,
    https://arxiv.org/abs/2606.06574. Unlike them, no label is looked at: they search for programs that answer rightly,
    with the answer at hand. The constants of their searches are not ours.

    Args:
        model: a `LanguageModel`; its dropout should be off.
        tokens: the text, one row, or several that share a program.
        reward: of a program's logits for these tokens.
        budget: programs to try.
        segment: the most layers that are looped together.
        most: the most times that they run.
        penalty: for length, in the reward's unit, at the length of the whole stack.
        exploration: e. At 1, a few tries are no better than guesses; at 0.1 they are.
        seed: of the choices.

    Raises:
        ValueError: a number is out of range, or the model is training.
    """
    if min(budget, segment, most) < 1:
        raise ValueError(f"budget is {budget}, segment {segment} and most {most}: each must be at least 1")
    if model.training:
        raise ValueError("the model is training: call its eval() before it is looked at")
    depth, draw = len(model.backbone.stack), random.Random(seed)
    known: dict[Program, float] = {}

    def value(program: Program) -> float:
        if program not in known:
            known[program] = reward(run(model, tokens, program), tokens) - penalty * len(program) / depth
        return known[program]

    value(tuple(range(depth)))
    root = _Node((), 0)
    while len(known) < budget and not root.done:
        path = _descend(root, depth, segment, most, exploration, draw, known)
        program, layer = path[-1].program, path[-1].layer
        while layer < depth:
            program, layer = draw.choice(_choices(program, layer, depth, segment, most))
        got = value(program)
        for node in reversed(path):
            node.visits, node.total = node.visits + 1, node.total + got
            node.done = node.layer == depth or (node.untried == [] and all(child.done for child in node.children))
    return _frontier(known)


class _Node:
    """The beginning of a program: what was decided about the layers below `layer`."""

    def __init__(self, program: Program, layer: int) -> None:
        self.program, self.layer = program, layer
        self.children: list[_Node] = []
        self.untried: list[tuple[Program, int]] | None = None
        self.visits, self.total, self.done = 0, 0.0, False


def _choices(program: Program, layer: int, depth: int, segment: int, most: int) -> list[tuple[Program, int]]:
    """The programs that go one decision further, and the layer that each comes to."""
    found = [(program, layer + 1), ((*program, layer), layer + 1)]
    for size in range(1, min(segment, depth - layer) + 1):
        some = tuple(range(layer, layer + size))
        found += [(program + some * times, layer + size) for times in range(2, most + 1)]
    return found


def _descend(
    root: _Node,
    depth: int,
    segment: int,
    most: int,
    exploration: float,
    draw: random.Random,
    known: dict[Program, float],
) -> list[_Node]:
    """From the root to a node that is new."""
    low, high = min(known.values()), max(known.values())
    path = [root]
    while path[-1].layer < depth:
        node = path[-1]
        if node.untried is None:
            node.untried = _choices(node.program, node.layer, depth, segment, most)
            draw.shuffle(node.untried)
        if node.untried:
            node.children.append(_Node(*node.untried.pop()))
            return [*path, node.children[-1]]

        def bound(child: _Node, parent: _Node = node) -> float:
            mean = (child.total / child.visits - low) / (high - low) if high > low else 0.0
            return mean + exploration * math.sqrt(math.log(parent.visits) / child.visits)

        path.append(max((child for child in node.children if not child.done), key=bound))
    return path


def _frontier(known: dict[Program, float]) -> list[Found]:
    """Programs that got more than every shorter one."""
    best: list[Found] = []
    for program, got in sorted(known.items(), key=lambda item: (len(item[0]), -item[1], item[0])):
        if not best or got > best[-1].reward:
            best.append(Found(program, got))
    return best
