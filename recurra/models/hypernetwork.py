"""A network that writes another network's weights, so that what is learned is how tasks are told apart.

What is forgotten is then weights that were once written, and those are few numbers a task: they are written again, and
held where they were. The recurrence here runs over the parts of the other network, never over time.
"""

import itertools
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.ops.steps import blank
from recurra.shapes import Float, Int, State, Tensor


class Hypernetwork(Model):
    r"""An MLP for each task, whose weights a recurrent network writes layer after layer from the task's embedding.

    .. math::
        h_c = \operatorname{mix}(e_t + p_c, h_{c-1}) \qquad w_c = W h_c + b \qquad
        \theta_t = (w_1, \dots, w_n) \qquad y = f(x; \theta_t)

    with c the chunks of the MLP's numbers in the order of its layers, so that a layer depends on those below it; each
    layer begins a chunk. What is written for the tasks learned before is held where it was while a new one is learned:

    .. math::
        L_t(\theta_t) + \beta \, \frac{1}{t-1} \sum_{s<t} \lVert \theta^*_s - \theta_s \rVert^2

    where the sum is `drift`, and beta its caller's; with none, this is plain fine-tuning. Chandra et al. 2022,
    https://arxiv.org/abs/2209.07712; the loss is von Oswald et al. 2020, https://arxiv.org/abs/1906.00695. Unlike the
    papers any mixer may write, in blocks with an MLP; a layer's numbers are divided by the root of its inputs, so that
    it begins at its usual size; the loss looks at the weights as they are and not one step ahead; the first paper's
    weighting of that loss by importance and its growing of the writer are not here.

    `outputs, state = model(x, state, clock)`: `(B, T, 1 + F)` to `(B, T, outputs)`. A step is its task's number and F
    features. Every step is by itself: there is no state through time (an empty tuple), a reset has nothing to forget,
    and `Clock.dt` is refused.

    Args:
        inputs: 1 + F.
        outputs: of the MLP that is written.
        tasks: how many there may be.
        target: units of the hidden layers of the MLP that is written (ReLU).
        chunk: numbers written at once.
        width, depth, pattern, mixers, hidden, dropout: of the writer.

    Raises:
        ValueError: a number is less than it can be, or no layer has as many numbers as a chunk.
    """

    name: ClassVar[str] = "hypernetwork"
    grows: ClassVar[bool] = False

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        tasks: int,
        width: int,
        depth: int,
        target: list[int] | tuple[int, ...] = (32,),
        chunk: int = 64,
        pattern: str = "gru",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(2, inputs=inputs)
        at_least(1, outputs=outputs, tasks=tasks, chunk=chunk, target=min(target, default=1))
        # inputs and outputs of each layer that is written
        self.layers = list(itertools.pairwise([inputs - 1, *target, outputs]))
        self.sizes = [(fan_in + 1) * fan_out for fan_in, fan_out in self.layers]
        if chunk > max(self.sizes):
            raise ValueError(f"chunk is {chunk}: the largest layer has {max(self.sizes)} numbers, give at most that")
        self.chunks = [-(-size // chunk) for size in self.sizes]
        self.tasks = nn.Embedding(tasks, width)
        self.places = nn.Parameter(torch.randn(sum(self.chunks), width))
        self.writer = Backbone(width, depth, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, chunk)
        nn.init.normal_(self.out.weight, std=width**-0.5)
        nn.init.zeros_(self.out.bias)

    def initial_state(self, batch: int) -> State:
        """Nothing is remembered from step to step."""
        return ()

    def write(self, tasks: Int[Tensor, " N"]) -> Float[Tensor, "N P"]:
        """All numbers of each task's MLP: layer after layer, the weights row by row and then the biases."""
        features, _ = self.writer(self.tasks(tasks)[:, None] + self.places)
        written = self.out(features).split(self.chunks, 1)
        layers = zip(written, self.sizes, self.layers, strict=True)
        return torch.cat([w.flatten(1)[:, :size] * fan_in**-0.5 for w, size, (fan_in, _) in layers], 1)

    def drift(self, kept: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
        """How far what is written for the first N tasks has gone from `kept`, what `write` once gave: the regulariser.

        The mean over tasks of the sum of squares.
        """
        return (self.write(torch.arange(len(kept), device=kept.device)) - kept).square().sum(1).mean()

    def forward(
        self, x: Float[Tensor, "B T G"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T O"], State]:
        """Each step through its own task's MLP.

        Raises:
            ValueError: there is no such task, or the clock has a `dt`.
        """
        if clock is not None and clock.dt is not None:
            raise ValueError("what a hypernetwork writes has no notion of time: it cannot honour Clock.dt")
        own, which = x[..., 0].unique(return_inverse=True)
        known = len(self.tasks.weight)
        if bool(((own < 0) | (own >= known) | (own != own.floor())).any()):
            raise ValueError(f"the tasks are {own.tolist()}: each must be one of 0 to {known - 1}")
        rows, which = x[..., 1:].flatten(0, 1), which.flatten()
        if not len(rows):
            return x.new_zeros(*x.shape[:2], self.layers[-1][1]), ()
        # rows are brought together by task, and put back
        order = which.argsort(stable=True)
        groups = rows[order].split(torch.bincount(which, minlength=len(own)).tolist())
        nets = self.write(own.long())
        y = torch.cat([self._run(group, net) for group, net in zip(groups, nets.unbind(0), strict=True)])
        y = y[order.argsort()].unflatten(0, x.shape[:2])
        return (y if clock is None or clock.valid is None else blank(clock.valid, y)), ()

    def _run(self, x: Float[Tensor, "N F"], net: Float[Tensor, " P"]) -> Float[Tensor, "N O"]:
        """The MLP that those numbers are."""
        last = len(self.layers) - 1
        for i, ((fan_in, fan_out), numbers) in enumerate(zip(self.layers, net.split(self.sizes), strict=True)):
            weight, bias = numbers.split([fan_in * fan_out, fan_out])
            x = F.linear(x, weight.unflatten(0, (fan_out, fan_in)), bias)
            x = x if i == last else F.relu(x)
        return x
