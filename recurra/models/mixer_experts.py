"""Families of systems at once: which expert a system belongs to is found by clustering, never by a gradient.

A gate that is trained beside its experts follows them too slowly, and they come to share what is not alike. Here what
is learned about each system is a short vector, its context; systems whose contexts lie together get one expert.
"""

import itertools
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.models.base import Model
from recurra.models.pairs import happened
from recurra.ops.ode import solve, solver
from recurra.ops.steps import restart
from recurra.parts.clusters import apart, claim, k_means
from recurra.shapes import Float, Int, State, Tensor, state_zeros, wide

Layers = list[tuple[Tensor, Tensor]]  # weights and biases, `(N, outputs, inputs)` and `(N, outputs)`


class Fields(nn.Module):
    """As many vector fields as there are experts, each an MLP of a state and a context; all begin as one."""

    def __init__(self, experts: int, features: int, context: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [features + context, *[width] * depth, features]
        one = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
        with torch.no_grad():
            one[-1].weight.mul_(0.1)
            one[-1].bias.zero_()
        self.features = features
        self.weights = nn.ParameterList(x.weight.detach().repeat(experts, 1, 1) for x in one)
        self.biases = nn.ParameterList(x.bias.detach().repeat(experts, 1) for x in one)

    def told(self, expert: Int[Tensor, " E"], context: Float[Tensor, "E C"]) -> Layers:
        """Those experts' layers, each with its context taken into its first biases."""
        pairs = zip(self.weights, self.biases, strict=True)
        (weight, bias), *rest = [(w.index_select(0, expert), b.index_select(0, expert)) for w, b in pairs]
        reads, hears = weight.split([self.features, context.shape[-1]], -1)
        return [(reads, bias + (hears @ context[..., None])[..., 0]), *rest]


def slope(z: Float[Tensor, "B F"], layers: Layers) -> Float[Tensor, "B F"]:
    """Each row's field at its state."""
    # the state is wider than narrow weights
    h = z.to(layers[0][0].dtype)
    for i, (weight, bias) in enumerate(layers):
        h = (weight @ h[..., None])[..., 0] + bias
        h = h if i == len(layers) - 1 else torch.tanh(h)
    return h.to(z.dtype)


class MixerExperts(Model):
    r"""Paths of many systems of a few kinds: each kind has an expert, a vector field that a system's context adapts.

    .. math::
        m(e) = \operatorname{argmax} \, W [\xi_e; 1] \qquad
        z_t = \begin{cases} x_t & \text{seen} \\ \hat z_t & \text{else} \end{cases} \qquad
        y_t = \hat z_{t+1} = z_t + \int_0^{\Delta t} f_{m(e)}(z, \xi_e) \, d\tau

    with e the system (its environment), :math:`\xi_e` its learned context and f an MLP. Experts and contexts are
    trained by gradients, and W by `regate` now and then. MixER: Nzoyem et al. 2025, https://arxiv.org/abs/2502.05335.
    Unlike the paper an expert is one MLP that reads state and context together, with no expansion in the context and no
    proximal terms; the first clusters begin at points far from each other, where the authors draw them; and the least
    squares have the smallest norm where the authors add noise.

    `outputs, state = model(x, state, clock)`: `(B, T, 2 + F)` to `(B, T, F)`. A step is its system's number, a mark (0:
    nothing is seen, what was foretold is followed) and F numbers; what is said at it is where the path is at the next.
    `Clock.dt` says how long that is, 1 where it is not given. To learn a system that is not among those trained, train
    its row of `contexts` alone.

    State: where the path is foretold to be, `(B, F)`; zero before anything was seen.

    Args:
        inputs: 2 + F.
        environments: how many systems there may be.
        experts: how many kinds of them.
        width, depth: of each expert's hidden layers, and how many.
        context: numbers of each system's context.
        method, steps: of the integral over one step: see the mixer `ode_rnn`.

    Raises:
        ValueError: a number is less than it can be, or there is no such method.
    """

    name: ClassVar[str] = "mixer_experts"
    grows: ClassVar[bool] = False
    gate: Tensor
    centres: Tensor

    def __init__(
        self,
        *,
        inputs: int,
        environments: int,
        width: int,
        depth: int = 1,
        experts: int = 2,
        context: int = 4,
        method: str = "rk4",
        steps: int = 1,
    ) -> None:
        super().__init__()
        at_least(3, inputs=inputs)
        at_least(1, environments=environments, width=width, depth=depth, experts=experts, context=context)
        self.how = solver(method, steps, None)
        self.experts = experts
        self.fields = Fields(experts, inputs - 2, context, width, depth)
        self.contexts = nn.Parameter(torch.zeros(environments, context))
        # at first all systems have the first expert
        self.register_buffer("gate", torch.zeros(experts, context + 1))
        # where the next clustering begins; all alike: nowhere yet
        self.register_buffer("centres", torch.zeros(experts, context))

    def initial_state(self, batch: int) -> State:
        """Nothing has been seen."""
        return state_zeros(self.contexts, batch, self.fields.features)

    @torch.no_grad()
    def chosen(self) -> Int[Tensor, " E"]:
        """The expert of every system."""
        return F.linear(_with_one(self.contexts), self.gate).argmax(1)

    def forward(
        self, x: Float[Tensor, "B T G"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T F"], State]:
        """Follow each row's system.

        Raises:
            ValueError: there is no such system.
        """
        return self.follow(x, self.chosen(), state, clock)

    def follow(
        self,
        x: Float[Tensor, "B T G"],
        expert: Int[Tensor, " E"],
        state: State | None = None,
        clock: Clock | None = None,
    ) -> tuple[Float[Tensor, "B T F"], State]:
        """As `forward`, with the expert of every system given."""
        clock = Clock() if clock is None else clock
        z: Tensor = self.initial_state(len(x)) if state is None else state
        number, marks, seen = x[..., 0], x[..., 1:2] > 0, x[..., 2:].to(z.dtype)
        if not x.shape[1]:
            return torch.zeros_like(x[..., 2:]), z
        live = happened(x, clock)
        time = torch.ones_like(seen[..., 0]) if clock.dt is None else clock.dt.to(z.dtype)
        time = time.masked_fill(~live, 0)
        system = self._known(number.masked_fill(~live, 0))
        table = self.fields.told(expert, self.contexts)
        moves = [True, *(system[:, 1:] != system[:, :-1]).any(0).tolist()]
        path, layers = [], table
        for t, (one, mark, now, goes, dt) in enumerate(
            zip(system.unbind(1), marks.unbind(1), seen.unbind(1), live.split(1, 1), time.split(1, 1), strict=True)
        ):
            if moves[t]:
                layers = [(weight.index_select(0, one), bias.index_select(0, one)) for weight, bias in table]
            start = z if clock.reset is None else restart(clock.reset[:, t], z)
            mine = layers
            moved = solve(self.how, lambda h, mine=mine: slope(h, mine), torch.where(mark, now, start), dt)
            z = torch.where(goes, moved, z)
            path.append(moved.masked_fill(~goes, 0))
        return torch.stack(path, 1).to(x.dtype), z

    @torch.no_grad()
    def regate(self, x: Float[Tensor, "B T G"], wanted: Float[Tensor, "B T F"]) -> bool:
        r"""Give each cluster of contexts one expert, and fit the gate to that; False where there was no clustering.

        .. math::
            W = \operatorname{argmin}_W \sum_e \lVert W [\xi_e; 1] - \operatorname{onehot}(m_{k(e)}) \rVert^2

        with k(e) by K-means, from where the clusters were the last time, and :math:`m_k` the expert not yet taken whose
        median error over the cluster's systems is least. `x` are whole rows of one system each, from which the errors
        of every expert are taken, and their systems are those that count. Where a cluster is empty, or K-means does
        not settle, all stays as it is, and the next call begins with new clusters.
        """
        own, row = self._known(x[:, 0, 0]).unique(return_inverse=True)
        points = self.contexts[own].to(wide(self.contexts))
        begin = (
            self.centres.to(points) if bool((self.centres != self.centres[:1]).any()) else apart(points, self.experts)
        )
        found = k_means(points, begin)
        if found is None:
            self.centres.zero_()
            return False
        cluster, centres = found
        self.centres.copy_(centres)
        each = torch.arange(self.experts, device=own.device)[:, None].expand(-1, len(self.contexts))
        said = torch.stack([self.follow(x, expert)[0] for expert in each])
        errors = (said - wanted).to(points.dtype).square().mean((2, 3))
        share = F.one_hot(row, len(own)).to(points.dtype)
        errors = (errors @ (share / share.sum(0))).T
        medians = torch.stack([errors[cluster == k].quantile(0.5, 0) for k in range(self.experts)])
        serves = F.one_hot(claim(medians)[cluster], self.experts).to(points.dtype)
        self.gate.copy_((torch.linalg.pinv(_with_one(points)) @ serves).T)
        return True

    def _known(self, number: Float[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """The systems' numbers."""
        most = len(self.contexts)
        if bool(((number < 0) | (number >= most) | (number != number.floor())).any()):
            raise ValueError(f"the systems are {number.unique().tolist()}: each must be one of 0 to {most - 1}")
        return number.long()


def _with_one(x: Float[Tensor, "N C"]) -> Float[Tensor, "N A"]:
    """Each row with a 1 behind it, whose weight is a bias."""
    return F.pad(x, (0, 1), value=1.0)
