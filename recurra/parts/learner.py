"""A memory that is a small network in training, with all that one needs around it: views of the input, gates, a norm.

Titans and the Miras family are settings of this; what differs between them is said where they are.
"""

import functools
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.ops import Descent, Net, Scan
from recurra.ops.descent.retention import Mirror
from recurra.ops.descent.whole import Layers, Tables, Taught, whole
from recurra.parts.conv import ShortConvolution
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm, unit
from recurra.shapes import Float, Tensor, wide

FORGET = (-5.0, -8.0)  # biases of what heads forget a step, the first and the last: 0.7 % and 0.03 %


Whole = tuple[Float[Tensor, "B R E"], Layers, Layers]  # a state where a chunk begins


def sizes_of(size: int, depth: int, expand: int) -> tuple[int, ...]:
    """What enters, is between, and leaves a network of `depth` layers, `expand` times as wide between as at its ends.

    Raises:
        ValueError: `depth` or `expand` is less than 1.
    """
    at_least(1, depth=depth, expand=expand)
    return (size, *[expand * size] * (depth - 1), size)


def start(net: Net, heads: int) -> Float[Tensor, "H P"]:
    """Initial weights: each layer's as Glorot & Bengio 2010, even within its bound."""
    bounds = [math.sqrt(6 / sum(shape)) for shape in net.shapes]
    layers = [torch.empty(heads, math.prod(s)).uniform_(-b, b) for s, b in zip(net.shapes, bounds, strict=True)]
    return torch.cat(layers, -1)


def fresh(initial: Float[Tensor, "H P"], batch: int, momentum: bool = False) -> tuple[Tensor, ...]:
    """The state of `Descent` before the first step."""
    initial = initial.to(wide(initial)).expand(batch, *initial.shape)
    none = torch.zeros_like(initial)
    state = initial, none, torch.ones_like(none[..., 0]), torch.zeros_like(none[:, 0, 0])
    return (*state, torch.zeros_like(none)) if momentum else state


def _log_sigmoid(x: Tensor) -> Tensor:
    """As torch's own, whose gradient has no C; from 40 on the rest is lost in float64 too."""
    return -F.softplus(-x, threshold=40.0)


class Learner(nn.Module):
    r"""Networks, one a head, that learn to answer keys with values while they are asked queries.

    .. math::
        y_t = W_o \bigl(\operatorname{norm}(f_{W_t}(q_t)) \odot \sigma(W_g x_t)\bigr) \qquad
        \theta_t = \theta\, \sigma(\cdot) \qquad \alpha_t = \sigma(\cdot) \qquad \eta_t = \sigma(\cdot) \qquad
        \delta_t = \operatorname{softplus}(\cdot)

    with q, k, v linear in x, then a short convolution with SiLU, q and k of length one (1e-6 inside the root); one
    rate, retention, momentum and threshold a head, each of a linear map of x; norm an RMSNorm of each head; and W the
    recurrence of `Descent`. Heads begin by forgetting at different speeds.

    State: the convolution's past, then that of `Descent`.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        chunk: steps whose gradients are taken at one place (C).
        rate: the most that a step's learning rate can be.
        conv_size: inputs that the short convolution sees at each step.
        momentum: whether there is one.
        normalised: whether the network's answer is normalised and added to what it was asked.
        epsilon: of that norm.
        power: p of the loss, the sum of :math:`|e|^p / p`.
        threshold: whether errors count no more than a threshold.
        mirror: what makes weights of sums of gradients.

    Raises:
        ValueError: `heads` does not divide `width`, `depth`, `expand`, `chunk` or `power` is less than 1, or `rate` is
            not greater than 0.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        depth: int,
        expand: int,
        chunk: int,
        rate: float,
        conv_size: int,
        momentum: bool = False,
        normalised: bool = False,
        epsilon: float = 1e-6,
        power: float = 2.0,
        threshold: bool = False,
        mirror: Mirror | None = None,
    ) -> None:
        super().__init__()
        at_least(1, chunk=chunk, power=power)
        greater_than(0, rate=rate)
        size = divide(width, heads)
        self.net = Net(sizes_of(size, depth, expand), normalised=normalised, epsilon=epsilon)
        self.heads, self.chunk, self.rate = heads, chunk, rate
        self.momentum, self.threshold, self.power, self.mirror = momentum, threshold, power, mirror
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.conv = ShortConvolution(3 * width, size=conv_size, bias=False)
        self.gates = nn.Linear(width, (2 + momentum + threshold) * heads)
        self.initial = nn.Parameter(start(self.net, heads))
        # an answer as long as the key that it is added to: what is longer can fit no value, and is moved for ever
        gain = torch.full((heads, size), size**-0.5)
        self.answer = nn.Parameter(torch.stack([gain, 0 * gain])) if normalised else None
        self.norm = RMSNorm(size)
        self.gate = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()
        with torch.no_grad():
            self.gates.bias.zero_()
            self.gates.bias[heads : 2 * heads] = torch.linspace(*FORGET, heads)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """The initial weights, untouched."""
        return self.conv.initial_state(batch), *fresh(self.initial, batch, self.momentum)

    def forward(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
        """Project, convolve, learn and ask, normalise, gate."""
        read, state = self.learn(x, state, clock)
        return self.answered(x, read), state

    def learn(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T H K"], tuple[Tensor, ...]]:
        """What the networks answer to every step as they learn it, and the state after the last."""
        past, *memory = state
        mixed, past = self.conv(self.project(x), past, clock)
        query, key, value, rate, forget, momentum, threshold = self._views(x, mixed, memory[0].dtype)
        record = Descent(
            query, key, value, rate, self.initial, self.net, self.chunk, forget, momentum, self.answer,
            power=self.power, threshold=threshold, mirror=self.mirror,
        )  # fmt: skip
        read, memory = self.scan(record, tuple(memory), clock)
        return read, (past, *memory)

    def _views(self, x: Float[Tensor, "B T D"], mixed: Float[Tensor, "B T E"], kind: torch.dtype) -> tuple[Any, ...]:
        """Query, key, value, rate, logarithms of what is kept of weights and of momentum, and the threshold."""
        query, key, value = mixed.unflatten(-1, (3, self.heads, -1)).unbind(2)
        rate, forget, *more = self.gates(x).to(kind).split(self.heads, -1)
        momentum = _log_sigmoid(more[0]) if self.momentum else None
        threshold = F.softplus(more[-1]) if self.threshold else None
        return unit(query), unit(key), value, self.rate * rate.sigmoid(), _log_sigmoid(-forget), momentum, threshold

    @property
    def plain(self) -> bool:
        """Whether `whole` says what `learn` does."""
        net = self.momentum and not self.net.normalised and self.conv.silu
        return net and self.power == 2 and not self.threshold and self.mirror is None

    def whole(
        self, x: Float[Tensor, "B C D"], state: Whole, taps: Float[Tensor, "J E"], known: Tables
    ) -> tuple[Float[Tensor, "B C H K"], Whole]:
        """As `learn` of a whole chunk, where the learner is `plain`, by calls that become C with others'.

        The state is the convolution's past, and weights and momentum by layers: nothing else of it is left. `taps` are
        the convolution's weights, turned over.
        """
        (past, start, momentum), steps = state, x.shape[1]
        inputs = torch.cat([past, self.project(x)], 1)
        mixed = functools.reduce(torch.add, (inputs[:, i : i + steps] * tap for i, tap in enumerate(taps.unbind(0))))
        views = self._views(x, F.silu(mixed), x.dtype)[:-1]
        read, start, momentum = whole(Taught(*(view.transpose(1, 2) for view in views)), start, momentum, known)
        return read.transpose(1, 2), (inputs[:, steps:], start, momentum)

    def answered(self, x: Float[Tensor, "B T D"], read: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T D"]:
        """What comes of the networks' answers to x: a norm of each head, a gate, a linear map."""
        return self.out(self.norm(read).flatten(-2).to(x.dtype) * self.gate(x).sigmoid())
