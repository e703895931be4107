"""Hopfield networks: patterns that are found again from a part of them. The classical one is a rule and no layer."""

from typing import NamedTuple

import torch
from torch import nn

from recurra.checks import at_least
from recurra.shapes import Float, Tensor, wide


class ClassicalHopfield(NamedTuple):
    r"""A network of N units that are -1 or 1, whose weights hold patterns; from a part of one it falls into it.

    .. math::
        W = \frac1N \sum_\mu \xi^\mu \xi^{\mu\top}, \; W_{ii} = 0 \qquad
        s_i \leftarrow \operatorname{sign}\Big( \sum_j W_{ij} s_j \Big) \qquad E = -\tfrac12 s^\top W s

    Hopfield 1982, https://doi.org/10.1073/pnas.79.8.2554. Where the sum is 0 a unit stays as it is. One unit after
    another, the energy never rises; all at once two states may take turns for ever.
    """

    weight: Float[Tensor, "N N"]

    @classmethod
    def hebbian(cls, patterns: Float[Tensor, "P N"]) -> "ClassicalHopfield":
        """Weights by Hebb's rule: about 0.138 N patterns drawn at random come back with few errors."""
        return cls((patterns.T @ patterns / patterns.shape[1]).fill_diagonal_(0))

    @classmethod
    def projection(cls, patterns: Float[Tensor, "P N"]) -> "ClassicalHopfield":
        r"""Weights :math:`\Xi (\Xi^\top \Xi)^{-1} \Xi^\top`: up to N patterns stay, if none is a sum of others.

        Personnaz et al. 1985, https://doi.org/10.1051/jphyslet:01985004608035900. The diagonal is kept.
        """
        return cls(torch.linalg.pinv(patterns) @ patterns)

    def energy(self, state: Float[Tensor, "*B N"]) -> Float[Tensor, "*B"]:
        """What no update of one unit raises, where the weights are symmetric without a diagonal."""
        return -0.5 * ((state @ self.weight.T) * state).sum(-1)

    def together(self, state: Float[Tensor, "*B N"]) -> Float[Tensor, "*B N"]:
        """All units at once."""
        field = state @ self.weight.T
        return torch.where(field == 0, state, field.sign())

    def recall(self, state: Float[Tensor, "*B N"], sweeps: int = 20) -> Float[Tensor, "*B N"]:
        """One unit after another, in order, until a sweep changes nothing, or at most `sweeps` times."""
        state = state.clone()
        for _ in range(sweeps):
            before = state.clone()
            for unit, row in enumerate(self.weight):
                field = state @ row
                state[..., unit] = torch.where(field == 0, state[..., unit], field.sign())
            if torch.equal(state, before):
                break
        return state


def update(
    query: Float[Tensor, "*B K"], patterns: Float[Tensor, "P K"], beta: float, steps: int = 1
) -> Float[Tensor, "*B K"]:
    r"""A query drawn to patterns that are like it, :math:`\xi \leftarrow X^\top \operatorname{softmax}(\beta X \xi)`.

    A small `beta` gives the mean of all patterns, a large one the nearest. Every row by itself takes `steps` of them.
    """
    for _ in range(steps):
        query = (beta * query @ patterns.T).softmax(-1) @ patterns
    return query


def energy(query: Float[Tensor, "*B K"], patterns: Float[Tensor, "P K"], beta: float) -> Float[Tensor, "*B"]:
    r"""What an update never raises, but for a constant: :math:`-\beta^{-1} \log \sum_\mu e^{\beta x_\mu^\top \xi}
    + \frac12 \xi^\top \xi`."""
    return 0.5 * query.square().sum(-1) - (beta * query @ patterns.T).logsumexp(-1) / beta


class Hopfield(nn.Module):
    r"""A layer of learned patterns: what comes in is drawn to those that are like it.

    .. math::
        \xi_0 = W_q x \qquad \xi_{s+1} = X^\top \operatorname{softmax}(\beta\, X \xi_s) \qquad y = W_o\, \xi_S

    for every head. Ramsauer et al. 2021, https://arxiv.org/abs/2008.02217: one update with :math:`\beta = 1 / \sqrt K`
    is softmax attention to the patterns. Unlike the authors' layer there is no norm, patterns are their own values, and
    the number of updates is fixed: theirs stops on the largest change in the batch, so that rows would touch.

    Args:
        width: features in and out (D).
        patterns: stored by each head.
        heads: how many; divides `width`.
        beta: how sharply the nearest pattern is preferred; None: :math:`1 / \sqrt{D / heads}`.
        steps: updates (S).

    Raises:
        ValueError: a number is less than 1, or `heads` does not divide `width`.
    """

    def __init__(
        self, width: int, *, patterns: int = 64, heads: int = 4, beta: float | None = None, steps: int = 1
    ) -> None:
        super().__init__()
        at_least(1, patterns=patterns, heads=heads, steps=steps)
        if width % heads:
            raise ValueError(f"heads is {heads}: it must divide the width, {width}")
        size = width // heads
        self.beta, self.steps = size**-0.5 if beta is None else beta, steps
        self.query = nn.Linear(width, width, bias=False)
        self.patterns = nn.Parameter(torch.randn(heads, patterns, size))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Every row by itself."""
        query = self.query(x).unflatten(-1, (len(self.patterns), -1))
        real = wide(query)
        found = [
            update(one, patterns, self.beta, self.steps)
            for one, patterns in zip(query.to(real).unbind(-2), self.patterns.to(real).unbind(0), strict=True)
        ]
        return self.out(torch.cat(found, -1).to(x.dtype))
