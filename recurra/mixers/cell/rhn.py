"""The recurrent highway network."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.steps import finer
from recurra.parts.init import glorot
from recurra.shapes import Float, Tensor


@functools.cache
def _rule(depth: int) -> Rule:
    """One tick, of `depth` in a step. The second state counts them; each has its own rows of R and its own biases."""

    def rhn(drive: Vectors, recur: Vectors, state: Vectors, *biases: Tensor) -> tuple[Tensor, Vectors]:
        s, tick = state
        candidate, transform = recur[0] + biases[0], recur[1] + biases[1]
        for at in range(1, depth):
            here = tick == at
            candidate = torch.where(here, recur[2 * at] + biases[2 * at], candidate)
            transform = torch.where(here, recur[2 * at + 1] + biases[2 * at + 1], transform)
        gate = torch.sigmoid(drive[1] + transform)
        s = gate * torch.tanh(drive[0] + candidate) + (1 - gate) * s
        return s, (s, torch.where(tick == depth - 1, torch.zeros_like(tick), tick + 1))

    return Rule(f"rhn_{depth}", rhn, 2, 2 * depth, state=2, params=2 * depth)


class RHN(Mixer):
    r"""A recurrent network that thinks several layers deep between one step and the next, on a highway.

    .. math::
        s_{t,0} = s_{t-1,L} \qquad y_t = s_{t,L} \qquad
        s_{t,l} = \tau_{t,l} \odot a_{t,l} + (1 - \tau_{t,l}) \odot s_{t,l-1}
    .. math::
        a_{t,l} = \tanh([l = 1]\, W_a x_t + R_{a,l}\, s_{t,l-1} + b_{a,l}) \qquad
        \tau_{t,l} = \sigma([l = 1]\, W_\tau x_t + R_{\tau,l}\, s_{t,l-1} + b_{\tau,l})

    Zilly et al. 2017, https://arxiv.org/abs/1607.03474. As in the paper's experiments what is not transformed is
    carried, and :math:`b_\tau` starts below zero, so that the highway is open. Unlike the paper there is no dropout.
    It is a cell on a finer clock, of L ticks a step, each of which makes the products of all layers and uses its own:
    on few cores that is quicker than a loop without them. Gating and attention around it, of Heidenreich et al. 2024,
    https://arxiv.org/abs/2410.02654, are not here: their equations are not verified.
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
        self.depth, self.rule = depth, _rule(depth)
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
        entering = F.linear(x, self.input_weight)
        drive = F.pad(entering[:, :, None], (0, 0, 0, self.depth - 1)).flatten(1, 2)
        record = Cell(self.rule, drive, self.weight, self.biases)
        # every step begins and ends at the first tick
        read, (s, _) = self.scan(record, (*state, torch.zeros_like(state[0])), finer(clock, self.depth))
        return read.unflatten(1, (-1, self.depth))[:, :, -1], (s,)
