"""Ordered events: what has happened so far, in which order, and what was undone? Memories that wait for each other."""

from typing import Any

import numpy as np
import torch

from recurra.shapes import Tensor
from recurra.tasks.base import Batch, SourceError
from recurra.tasks.choices import Choices, certain
from recurra.tasks.draws import begins, rows


class OrderedEvents(Choices):
    r"""Say at every step which chains of events are complete: their links have come in order, with anything between.

    .. math::
        c_i \leftarrow c_i + [x_t = \text{link}_{i, c_i}] \qquad
        c_i \leftarrow 0 \text{ if } x_t = \text{undo}_i \qquad
        y_t = \textstyle\sum_i 2^i\, [c_i = \text{links}]

    The task "sequences" of Ronca 2026, https://arxiv.org/abs/2605.06384: a language without groups. A link out of
    order changes nothing, and an undoing begins its chain anew. About `events` steps of a row are events, whatever its
    length, so a longer row is a longer wait; all other steps are noise. An event is an undoing one time in six, and
    each undoing or link is as likely as any other. Unlike the authors' generator, of which the released form draws no
    undoing (it asks for a number that is at once more than one probability and less than a smaller one) and calls a
    chain complete after as many links as there are chains. Chance is to name any answer: 1 / 2^chains.

    Tokens: first the links, chain by chain, then the undoings, then the noise; answers are tokens by their numbers.

    Args:
        chains: that run side by side.
        links: of each chain.
        noise: different tokens that mean nothing.
        events: how many of a row's steps are events, on average.
    """

    def __init__(self, *, chains: int = 2, links: int = 2, noise: int = 10, events: int = 24) -> None:
        if min(chains, links, noise, events) < 1:
            raise SourceError(
                f"chains is {chains}, links {links}, noise {noise} and events {events}: they must be at least 1"
            )
        self.config = {"task": "ordered_events", "chains": chains, "links": links, "noise": noise, "events": events}
        self.chains, self.links, self.noise, self.events = chains, links, noise, events

    @property
    def chance(self) -> float:
        return 0.5**self.chains

    def model_arguments(self) -> dict[str, Any]:
        return {"vocabulary": max(self.chains * (self.links + 1) + self.noise, 2**self.chains)}

    def batch(self, split: str, index: int, size: int, length: int, seed: int, carried: bool = False) -> Batch:
        tokens = torch.from_numpy(rows(self._draw, split, index, size, length, seed))
        chain = torch.arange(self.chains)
        done, targets = torch.zeros(size, self.chains, dtype=torch.int64), []
        for token in tokens.unbind(1):
            done = done + (token[:, None] == chain * self.links + done.clamp(max=self.links - 1)) * (done < self.links)
            done = done.masked_fill(token[:, None] == self.chains * self.links + chain, 0)
            targets.append(((done == self.links) << chain).sum(1))
        return Batch(tokens, torch.stack(targets, 1), reset=begins(size, length) if carried else None)

    def solve(self, batch: Batch) -> Tensor:
        # for each chain a list of the links that are still to come
        answers = torch.zeros_like(batch.inputs)
        whole = [list(range(chain * self.links, (chain + 1) * self.links)) for chain in range(self.chains)]
        for row, answer in zip(batch.inputs.tolist(), answers, strict=True):
            missing = [list(links) for links in whole]
            for step, token in enumerate(row):
                for chain, links in enumerate(missing):
                    if links[:1] == [token]:
                        links.pop(0)
                    if token == self.chains * self.links + chain:
                        links[:] = whole[chain]
                answer[step] = sum(2**chain for chain, links in enumerate(missing) if not links)
        return certain(answers, self.model_arguments()["vocabulary"])

    def _draw(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        links, undoings = self.chains * self.links, self.chains
        event, undoing = random.random((2, size, length))
        tokens = links + undoings + random.integers(0, self.noise, (size, length))
        happens = event < self.events / length
        tokens = np.where(happens, random.integers(0, links, (size, length)), tokens)
        return np.where(happens & (undoing < 1 / 6), links + random.integers(0, undoings, (size, length)), tokens)
