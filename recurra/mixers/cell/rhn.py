"""The recurrent highway network."""

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.init import glorot
from recurra.shapes import Float, Tensor


def rhn(drive: Vectors, recur: Vectors, state: Vectors, *biases: Tensor, tick: int) -> tuple[Tensor, Vectors]:
    """One layer of a step: only the first sees the input, each has its own R and biases."""
    (s,) = state
    candidate, transform = (r + b for r, b in zip(recur, biases[2 * tick : 2 * tick + 2], strict=True))
    if tick == 0:
        candidate, transform = candidate + drive[0], transform + drive[1]
    gate = torch.sigmoid(transform)
    s = gate * torch.tanh(candidate) + (1 - gate) * s
    return s, (s,)


class RHN(Mixer):
    r"""A recurrent network that thinks several layers deep between one step and the next, on a highway.

    .. math::
        s_{t,0} = s_{t-1,L} \qquad y_t = s_{t,L} \qquad
        s_{t,l} = \tau_{t,l} \odot a_{t,l} + (1 - \tau_{t,l}) \odot s_{t,l-1}
    .. math::
        a_{t,l} = \tanh([l = 1]\, W_a x_t + R_{a,l}\, s_{t,l-1} + b_{a,l}) \qquad
        \tau_{t,l} = \sigma([l = 1]\, W_\tau x_t + R_{\tau,l}\, s_{t,l-1} + b_{\tau,l})

    Zilly et al. 2017, https://arxiv.org/abs/1607.03474. As in the paper's experiments, and in its authors' code
    (https://github.com/jzilly/RecurrentHighwayNetworks), what is not transformed is carried, and :math:`b_\tau` starts
    below zero, so that the highway is open. Unlike the paper there is no dropout. The attention and the three kinds of
    gates around it of Heidenreich et al. 2024, https://arxiv.org/abs/2410.02654 (a sum, a learned rate, a gate that
    sees its input), are not here: their equations are not verified, and no code of them was found.
    State: (s,), `(B, D)`, float32.

    Args:
        width: features in and out, and units (D).
        depth: L, layers in a step.
        transform_bias: where :math:`b_\tau` starts.

    Raises:
        ValueError: `depth` is less than 1.
    """

    undecayed = ("biases",)

    def __init__(self, width: int, *, depth: int = 3, transform_bias: float = -2.0) -> None:
        super().__init__()
        at_least(1, depth=depth)
        self.rule = Rule(f"rhn_{depth}", rhn, 2, 2, params=2 * depth, operator="ticks", ticks=tuple(range(depth)))
        self.input_weight = nn.Parameter(glorot(2, width, width))
        recurrent = [nn.init.orthogonal_(torch.empty(width, width))[None] for _ in range(2 * depth)]
        self.weight = nn.Parameter(torch.stack(recurrent))
        self.biases = nn.Parameter(torch.tensor([0.0, transform_bias]).repeat(depth)[:, None].repeat(1, width))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"]]:
        return (self.zeros(batch, self.biases.shape[1]),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"]]]:
        record = Cell(self.rule, x, self.weight, self.biases, input_weight=self.input_weight)
        return self.scan(record, state, clock)
