"""Films of a shape that moves: no single frame says where to, so what sees must also remember."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Float, Tensor
from recurra.tasks.base import Batch, SourceError, Task
from recurra.tasks.choices import certain, cross_entropy
from recurra.tasks.draws import begins, generator, rows

MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # down and across, in pixels a frame
SHAPES = ("###\n###\n###", ".#.\n###\n.#.", "#.#\n.#.\n#.#", "###\n#.#\n###", "##.\n##.\n...")


class MovingShapes(Task):
    """Watch a film and say which of four ways its shape moves: `(B, T, 1, side, side)`, and a class a frame.

    One of five shapes of three pixels a side begins anywhere and moves a pixel a frame on a torus, so where it is says
    nothing of where it goes: with one frame the best is chance, exactly 1/4. Every pixel is noisy. Made for networks
    that see and remember, Donahue et al. 2015, https://arxiv.org/abs/1411.4389, in the place of films of people. Every
    frame counts in training; the measure takes the mean of a film's probabilities. Which film is in the test a hash
    decides, of its shape, way, beginning, and a further number that nothing is made of.

    Args:
        side: pixels of a frame, across and down.
        noise: the standard deviation of every pixel; a shape's are 1.
    """

    head = "lrcn"
    measure = "accuracy"
    lower_is_better = False

    def __init__(self, *, side: int = 12, noise: float = 0.3) -> None:
        if side < 4 or noise < 0:
            raise SourceError(f"side is {side} and noise is {noise}: they must be at least 4 and 0")
        self.config = {"task": "moving_shapes", "side": side, "noise": noise}
        self.side, self.noise = side, noise
        self.pictures = torch.zeros(len(SHAPES), side, side)
        for picture, shape in zip(self.pictures, SHAPES, strict=True):
            picture[:3, :3] = torch.tensor([[float(x == "#") for x in line] for line in shape.split("\n")])

    @property
    def chance(self) -> float:
        return 1 / len(MOVES)

    def model_arguments(self) -> dict[str, Any]:
        return {"inputs": [1, self.side, self.side], "classes": len(MOVES)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        if length < 2:
            raise SourceError(f"a film that moves takes at least 2 frames, not {length}")
        films = rows(self._draw, split, index, size, length, seed)
        random = generator(split, index, size, length, seed)
        frames = torch.from_numpy(random.normal(0, self.noise, (size, length, self.side, self.side))).float()
        for film, (shape, way, down, across) in zip(frames, films[:, :4].tolist(), strict=True):
            for t, frame in enumerate(film):
                frame += self.pictures[shape].roll((down + t * MOVES[way][0], across + t * MOVES[way][1]), (0, 1))
        targets = torch.from_numpy(films[:, 1:2]).expand(size, length)
        return Batch(frames[:, :, None], targets, reset=begins(size, length) if carried else None)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs, batch)

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, float]:
        right = outputs.float().softmax(-1).mean(1).argmax(-1) == batch.targets[:, 0]
        return float(right.sum()), float(len(right))

    def solve(self, batch: Batch) -> Tensor:
        """The way in which the frames, each moved back, are most alike: exact but for the noise."""
        films = batch.inputs[:, :, 0]
        likeness = torch.stack([self._moved_back(films, way).sum(1).square().sum((1, 2)) for way in MOVES], -1)
        answers = likeness.argmax(-1)[:, None].expand(batch.inputs.shape[:2])
        return certain(answers, len(MOVES))

    def _moved_back(self, films: Float[Tensor, "B T h w"], way: tuple[int, int]) -> Float[Tensor, "B T h w"]:
        """Every frame where the shape would be where it began."""
        back = [frame.roll((-t * way[0], -t * way[1]), (1, 2)) for t, frame in enumerate(films.unbind(1))]
        return torch.stack(back, 1)

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Shapes, ways, places down and across, and a number that nothing is made of."""
        return random.integers(0, [len(SHAPES), len(MOVES), self.side, self.side, 2**20], (size, 5))
