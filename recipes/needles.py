"""A pair hidden in 65,536 steps, asked for at the end: memories that never grow against a window.

python recipes/needles.py [--steps 400] [--seeds 3] [--first 0]
"""

import random
from typing import Any

import torch
from rewrites import RATE, learn, table

from recurra.mixers.descent.titans import Titans
from recurra.models import LanguageModel
from recurra.shapes import Tensor
from recurra.state import nbytes
from recurra.tasks import Rewrites
from recurra.tasks.choices import cross_entropy

# of a segment, and of the window; steps of a row at first, and at most
SEGMENT, SHORTEST, LONGEST = 32, 64, 8192
# updates before rows are longer, and until they are twice as long; tokens of a batch, and rows at most
FIRST, RAMP, TOKENS, ROWS = 100, 30, 4096, 64
LENGTHS, HELD_OUT, PIECE = (1024, 8192, 65536), 24, 1024
WIDTH = 32
ARMS: dict[str, dict[str, Any]] = {
    "sliding_window": {"window": SEGMENT},
    "rmt": {"segment": SEGMENT, "tokens": 8},
    "armt": {"segment": SEGMENT, "tokens": 4},
    "titans": {"chunk": SEGMENT},
}
# biases of what heads of Titans forget a step, the first and the last: 1.5e-8 and 2e-9 of what they know
FORGETS = -18.0, -20.0
TASK = Rewrites(keys=1, values=8, segments=1, writes=1, fillers=4)


def model_of(mixer: str) -> LanguageModel:
    """One block that sees two steps at a time and remembers nothing else, and one of the mixer."""
    pattern, mixers = f"channel_mix,{mixer}", {mixer: ARMS[mixer]}
    model = LanguageModel(**TASK.model_arguments(), width=WIDTH, depth=2, pattern=pattern, mixers=mixers, hidden=0)
    for part in model.modules():
        if isinstance(part, Titans):
            remember(part)
    return model


@torch.no_grad()
def remember(titans: Titans) -> None:
    """Let heads begin by forgetting next to nothing; by themselves it is 7e-3 to 3e-4 a step."""
    heads = titans.learner.heads
    titans.learner.gates.bias[heads : 2 * heads] = torch.linspace(*FORGETS, heads)


@torch.no_grad()
def found(model: LanguageModel, length: int) -> float:
    """The share of held-out rows of that length whose value is said, read piece by piece with nothing but the state."""
    batch = TASK.batch("test", 0, HELD_OUT, length, 0)
    state = model.initial_state(HELD_OUT)
    size = nbytes(state)
    for piece in batch.inputs.split(PIECE, 1):
        logits, state = model(piece, state)
        assert nbytes(state) == size
    asked = TASK.keys
    last = batch._replace(targets=batch.targets[:, -asked:], scored=batch.scored[:, -asked:])
    right, answers = TASK.score(logits[:, -asked:], last)
    return right / answers


def run(mixer: str, steps: int, seed: int) -> list[float]:
    """What is found at each length by a model that was trained on short rows."""
    torch.manual_seed(seed)
    draw, model = random.Random(seed), model_of(mixer)

    def loss_at(step: int) -> Tensor:
        longest = min(LONGEST, SHORTEST << max(0, step - FIRST) // RAMP)
        length = max(SHORTEST, longest >> draw.randint(0, 2))
        batch = TASK.batch("train", step, max(1, min(ROWS, TOKENS // length)), length, seed)
        return cross_entropy(model(batch.inputs)[0], batch)

    learn(model, steps, RATE, loss_at)
    return [found(model, length) for length in LENGTHS]


def main() -> None:
    table(__doc__ or "", 400, [f"{length:,} steps" for length in LENGTHS], ARMS, run, model_of)


if __name__ == "__main__":
    main()
