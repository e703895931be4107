"""Items in a row, one of them said again, and the one after it asked for: machines with slots against none.

python recipes/machines.py [--steps 4000] [--seeds 3] [--first 0]
"""

import random
from typing import Any, cast

import numpy as np
import torch
from rewrites import learn, table

from recurra.mixers.cell.ntm import NTM
from recurra.models import LanguageModel
from recurra.ops import Tape
from recurra.shapes import Tensor
from recurra.tasks import Batch
from recurra.tasks.choices import counted, cross_entropy
from recurra.tasks.draws import rows

# what an item is made of, and its symbols; items of a row in training
SYMBOLS, LONG, LEAST, MOST = 8, 3, 2, 6
ITEMS, HELD_OUT = (2, 4, 6, 8, 12), 512
WIDTH, BATCH, RATE = 64, 16, 2e-3
ARMS: dict[str, dict[str, Any]] = {"lstm": {}, "ntm": {"slots": 32}, "dnc": {"slots": 16}}
# how an NTM's heads begin: strength, gate, back, stay, on and sharp of those that write, and of those that read
WRITES, READS = (0.0, -2.0, 0.0, 0.0, 2.0, 2.0), (6.0, 0.0, 0.0, 0.0, 0.0, 2.0)
# 0 is silence, symbols are from 1
ITEM, ASK = SYMBOLS + 1, SYMBOLS + 2


def model_of(mixer: str) -> LanguageModel:
    """One block of the mixer alone."""
    mixers = {mixer: ARMS[mixer]}
    model = LanguageModel(vocabulary=ASK + 1, width=WIDTH, depth=1, pattern=mixer, mixers=mixers, hidden=0)
    for part in model.modules():
        if isinstance(part, NTM):
            steer(part)
    return model


@torch.no_grad()
def steer(machine: NTM) -> None:
    """Heads that write begin by moving on a slot a step, those that read by looking around, and all of them sharply."""
    memory, bias = cast(Tape, machine.controller.memory), machine.controller.interface.bias
    heads = bias[: memory.heads * (memory.size + 6)].view(memory.heads, -1)[:, memory.size :]
    heads[: memory.write_heads], heads[memory.write_heads :] = torch.tensor(WRITES), torch.tensor(READS)


def batch_of(split: str, index: int, size: int, items: int, seed: int) -> Batch:
    """Rows of a mark and an item, again and again, then one of them between two questions, and silence to answer in."""

    def draw(generator: np.random.Generator, size: int, length: int) -> np.ndarray:
        numbers = generator.random((size, SYMBOLS**LONG)).argsort(1)[:, :items, None]
        symbols = 1 + numbers // SYMBOLS ** np.arange(LONG) % SYMBOLS
        row, asked = np.arange(size), generator.integers(items - 1, size=size)
        listed = np.concatenate([np.full((size, items, 1), ITEM), symbols], 2).reshape(size, -1)
        mark = np.full((size, 1), ASK)
        return np.concatenate([listed, mark, symbols[row, asked], mark, symbols[row, asked + 1]], 1)

    length = (items + 2) * (LONG + 1)
    content = torch.from_numpy(rows(draw, split, index, size, length, seed))
    answers = (torch.arange(length) >= length - LONG).expand_as(content)
    return Batch(content.masked_fill(answers, 0), content.masked_fill(~answers, 0), answers)


@torch.no_grad()
def known(model: LanguageModel, items: int) -> float:
    """The share of held-out symbols that are said."""
    batch = batch_of("test", 0, HELD_OUT, items, 0)
    logits, targets = counted(model(batch.inputs)[0], batch)
    return float((logits.argmax(-1) == targets).double().mean())


def run(mixer: str, steps: int, seed: int) -> list[float]:
    """What is known of rows with each number of items."""
    torch.manual_seed(seed)
    draw, model = random.Random(seed), model_of(mixer)

    def loss_at(step: int) -> Tensor:
        batch = batch_of("train", step, BATCH, draw.randint(LEAST, MOST), seed)
        return cross_entropy(model(batch.inputs)[0], batch)

    learn(model, steps, RATE, loss_at)
    return [known(model, items) for items in ITEMS]


def main() -> None:
    table(__doc__ or "", 4000, [f"{n} items" for n in ITEMS], ARMS, run, model_of)


if __name__ == "__main__":
    main()
