"""An influence as one outer product, right on average: memory as of the parameters, for any cell at all."""

import torch

from recurra.shapes import Float, Tensor
from recurra.train.rules.influence import Influence
from recurra.train.rules.layer import Layer, Step
from recurra.train.rules.online import OnlineRule

LEAST = 1e-7  # of a norm: a share of nothing is no number


class RankOne(Influence):
    r"""One vector over the state and one over the parameters, whose product is the influence on average.

    .. math::  \tilde s \leftarrow \rho_0 D \tilde s + \rho_1 \nu \qquad
        \tilde\theta \leftarrow \tilde\theta / \rho_0 + \nu^\top I / \rho_1 \qquad \nu \in \{-1, 1\}^S
    .. math::  \rho_0 = \sqrt{|\tilde\theta| / |D \tilde s|} \qquad \rho_1 = \sqrt{|\nu^\top I| / |\nu|}
    """

    def start(self, rows: int) -> tuple[Tensor, Tensor]:
        return self.layer.zeros(rows, self.layer.size), self.layer.zeros(rows, self.layer.count)

    def advance(self, memory: tuple[Tensor, Tensor], at: Step) -> tuple[Tensor, Tensor]:
        state, parameters = memory
        state = self.layer.push(state, at)
        signs = 2 * torch.randint(2, state.shape, device=state.device).to(state) - 1
        direct = self.layer.pull(signs[:, None], at)[0][:, 0]
        old, new = balance(parameters, state), balance(direct, signs)
        return old * state + new * signs, parameters / old + direct / new

    def credit(self, memory: tuple[Tensor, Tensor], error: Float[Tensor, "B S"]) -> Float[Tensor, "B P"]:
        state, parameters = memory
        return (error * state).sum(1, keepdim=True) * parameters


class UORO(OnlineRule):
    r"""Unbiased online recurrent optimization: credit that is right on average, from two vectors.

    .. math::  J_t \approx \tilde s_t \tilde\theta_t^\top \qquad E[\tilde s_t \tilde\theta_t^\top] = J_t

    Tallec & Ollivier 2018, https://arxiv.org/abs/1702.05043. A step costs the cell's own step, forwards and backwards,
    once each. Its noise grows with the state's size. Signs are drawn anew for each step and row; a row that begins
    anew forgets both vectors. See `RankOne` for the equations.
    """

    def remember(self, layer: Layer) -> Influence:
        influence = RankOne(layer)
        # raises here, and not in the midst of training, where a step has no slopes
        at = layer.first()
        influence.advance(influence.start(1), at)
        return influence


def balance(over: Float[Tensor, "B *F"], under: Float[Tensor, "B *G"]) -> Float[Tensor, "B 1"]:
    """What makes two factors of a product equally long: the least noise."""
    lengths = (x.flatten(1).norm(dim=1, keepdim=True) + LEAST for x in (over, under))
    return (next(lengths) / next(lengths)).sqrt()
