"""Paths longer than trained, with more loops than trained: the block attends along a graph's arrows, a hop in a loop.

    python recipes/silent_thinking_graphs.py [--steps 300] [--seeds 3] [--first 0]

A program of its own beside recipes/silent_thinking.py, as nodes of a graph are no text: their order says nothing.
"""

import random
from typing import ClassVar, NamedTuple

import torch
from rewrites import arguments, learn
from silent_thinking import page
from torch import nn
from torch.nn import functional as F

from recurra.models import DepthRecurrent
from recurra.shapes import Bool, Float, Int, Tensor
from recurra.tasks import GraphReachability
from recurra.tasks.graph_reachability import FIRST

WIDTH, HIDDEN, HEADS, EXTRAS = 48, 96, 4, 3
# hops of training, one more allowed every RAMP updates; loops are drawn from as many as these hops take to MANY
FEWEST, MOST, RAMP, MANY = 2, 6, 40, 8
BATCH, RATE = 64, 3e-3
HOPS, LOOPS, HELD_OUT = (2, 4, 6, 8, 10, 12, 16), (1, 2, 4, 6, 8, 12, 16, 24, 32), 128


class Graphs(NamedTuple):
    """A batch of graphs of N nodes, and whether a path leads from one of them to another."""

    nodes: Int[Tensor, "B N"]  # 1 where one starts, 2 where one wants to go, 0 elsewhere
    arrows: Bool[Tensor, "B 1 N N"]  # who hears whom: an arrow's head its tail, and every node itself
    goal: Int[Tensor, " B"]
    answers: Int[Tensor, " B"]


class Arrows(nn.Module):
    """Attention of every node to itself and those with an arrow to it: its state is the graph, and stays as it is."""

    grows: ClassVar[bool] = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "B N D"], state: tuple[Tensor], clock: None) -> tuple[Tensor, tuple[Tensor]]:
        heads = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.inside(x).chunk(3, -1))
        read = F.scaled_dot_product_attention(*heads, attn_mask=state[0])
        return self.out(read.transpose(1, 2).flatten(2)), state


def graphs(split: str, index: int, size: int, least: int, most: int, seed: int) -> Graphs:
    """The rows of `graph_reachability` as what they say: edges are no longer text."""
    count, length = 2 * (most + 1) + EXTRAS, 4 * (most + EXTRAS) + 3
    task = GraphReachability(least=least, most=most, extras=EXTRAS, nodes=count)
    batch = task.batch(split, index, size, length, seed)
    # rows end with where one starts, where one wants to go and a question mark; blanks stand in front, below all nodes
    names, row = batch.inputs - FIRST, torch.arange(size)
    tails, heads = names[:, :-3].unflatten(1, (-1, 2)).unbind(-1)
    told = tails >= 0
    arrows = torch.eye(count, dtype=torch.bool).repeat(size, 1, 1)
    arrows[row[:, None].expand_as(told)[told], heads[told], tails[told]] = True
    nodes, start, goal = torch.zeros(size, count, dtype=torch.long), names[:, -3], names[:, -2]
    nodes[row, start], nodes[row, goal] = 1, 2
    return Graphs(nodes, arrows[:, None], goal, batch.targets[:, -1])


def model_of() -> DepthRecurrent:
    """One block, looped, whose mixer is attention along arrows; loops have no marks, and LayerScale begins at one."""
    model = DepthRecurrent(vocabulary=3, width=WIDTH, hidden=HIDDEN, scale=1.0, limit=max(LOOPS))
    model.blocks[0].mixer = Arrows(WIDTH)
    model.marks.requires_grad_(False)
    return model


def says(model: DepthRecurrent, batch: Graphs, loops: int) -> Float[Tensor, "B 2"]:
    """What stands at the goal after that many loops: logits of no and yes."""
    logits, _ = model(batch.nodes, (((batch.arrows,),),) * loops)
    return logits[torch.arange(len(batch.goal)), batch.goal, :2]


def trained(steps: int, seed: int) -> DepthRecurrent:
    """A model that was judged by what it says after the last loop alone."""
    torch.manual_seed(seed)
    draw, model = random.Random(seed), model_of()

    def loss_at(step: int) -> Tensor:
        most = min(MOST, FEWEST + step // RAMP)
        batch = graphs("train", step, BATCH, 1, most, seed)
        return F.cross_entropy(says(model, batch, draw.randint(most, MANY)), batch.answers)

    learn(model, steps, RATE, loss_at)
    return model


@torch.no_grad()
def table(model: DepthRecurrent) -> list[list[float]]:
    """Held-out accuracy for each number of hops (rows) and of loops."""
    rows = []
    for hops in HOPS:
        batch = graphs("test", 0, HELD_OUT, hops, hops, 0)
        right = [says(model, batch, loops).argmax(-1) == batch.answers for loops in LOOPS]
        rows.append([float(x.double().mean()) for x in right])
    return rows


def main() -> None:
    options = arguments(__doc__ or "", 300)
    torch.set_num_threads(1)
    seeds = range(options.first, options.first + options.seeds)
    tables = [table(trained(options.steps, seed)) for seed in seeds]
    print(page("hops", HOPS, LOOPS, tables))


if __name__ == "__main__":
    main()
