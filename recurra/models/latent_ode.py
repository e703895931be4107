"""A hidden state that moves by itself: found by reading what was seen backwards in time, then followed forwards."""

from typing import Any, ClassVar

import torch
from torch import nn

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.pairs import happened
from recurra.ops.ode import solve, solver
from recurra.shapes import Bool, Float, State, Tensor, state_zeros


class Field(nn.Module):
    """The slope of the latent state: a net of one hidden layer, which begins small."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(latent, width), nn.Linear(width, latent)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()

    def forward(self, z: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        # the state is wider than narrow weights
        return self.second(torch.tanh(self.first(z.to(self.first.weight.dtype)))).to(z.dtype)


class LatentODE(Model):
    r"""Paths that are seen now and then: what they do at any time follows from where they were at the first.

    .. math::
        \mu, \log\sigma = W \operatorname{encode}(x_S, \dots, x_1) \qquad z_1 \sim N(\mu, \sigma^2) \qquad
        \dot z = f(z) \qquad \hat x_t = \operatorname{decode}(z_t)

    `outputs, state = model(x, state, clock)`: `(B, T, 2 F)` to `(B, T, F + 1)`. A step is F numbers (zero where nothing
    was seen) and F marks that say which were; the clock's `dt` says when, 1 where it is not given. Outputs are the
    means of the F numbers at each step and, at a row's first step, the nats between :math:`N(\mu, \sigma^2)` and a
    standard normal density, zero elsewhere: what is to be added to the nats of the numbers for the evidence's lower
    bound. While training z is drawn; else it is :math:`\mu`. Rubanova, Chen & Duvenaud 2019,
    https://arxiv.org/abs/1907.03907. Unlike the paper any mixer that has time may encode, in blocks with an MLP, the
    ODE's steps are fixed, and the last sighting, which is read first, comes one unit of time after the start of
    reading.

    State: z `(B, latent)` and whether it has been found, `(B, 1)` bool. What was seen comes in one call, as it is read
    from its end; from the state on only the future can be asked for (all marks zero), and there the law holds.

    Args:
        inputs: 2 F.
        latent: numbers of z.
        method, steps: of the decoder's ODE, in one step of the clock: see the mixer `ode_rnn`.
        width, depth, pattern, mixers, hidden, dropout: of the encoder; the field and the decoder are as wide.

    Raises:
        ValueError: `inputs` is odd, the encoder has no notion of time, or there is no such method.
    """

    name: ClassVar[str] = "latent_ode"
    grows: ClassVar[bool] = False

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        depth: int,
        latent: int = 8,
        method: str = "rk4",
        steps: int = 1,
        pattern: str = "ode_rnn",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inputs % 2:
            raise ValueError(f"inputs is {inputs}: it must be even, numbers and as many marks")
        self.latent, self.how = latent, solver(method, steps, None)
        self.embedding = nn.Linear(inputs, width)
        self.encoder = Backbone(width, depth, pattern, mixers, hidden, dropout)
        if not self.encoder.timed:
            raise ValueError(f"{pattern} has no notion of time: a latent ODE's encoder needs one, such as ode_rnn")
        self.found = nn.Linear(width, 2 * latent)
        self.field = Field(latent, width)
        self.out = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, inputs // 2))

    def initial_state(self, batch: int) -> State:
        """Nothing has been found."""
        like = self.found.weight
        z = state_zeros(like, batch, self.latent)
        return z, torch.zeros(batch, 1, dtype=torch.bool, device=like.device)

    def forward(
        self, x: Float[Tensor, "B T G"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T O"], State]:
        """Read backwards and follow forwards, or with a state follow further.

        Raises:
            ValueError: the clock has resets, or something was seen after the state.
        """
        if clock is not None and clock.reset is not None:
            raise ValueError("a latent ODE's row is one path: give rows without reset")
        z, known = self.initial_state(len(x)) if state is None else state
        if x.shape[1] == 0:
            return x.new_zeros(len(x), 0, x.shape[-1] // 2 + 1), (z, known)
        marks = x[..., x.shape[-1] // 2 :]
        live = happened(x, clock)
        dt = torch.ones_like(x[..., 0]) if clock is None or clock.dt is None else clock.dt
        dt = torch.where(live, dt, 0)
        if bool((known & live & (marks > 0).any(-1)).any()):
            raise ValueError("something was seen after the state: what is seen is read from its end, so give it whole")
        # a row's first step is where z is found: nothing flows before it
        first = live & (live.cumsum(1) == 1) & ~known
        start, nats = self._find(x, first, live & ((marks > 0).any(-1) | first), dt)
        z = torch.where(known | ~first.any(1, keepdim=True), z, start.to(z.dtype))
        path = []
        for time, flows, begins in zip(dt.split(1, 1), live.split(1, 1), first.split(1, 1), strict=True):
            moved = solve(self.how, self.field, z, time.to(z.dtype))
            z = torch.where(flows & ~begins, moved, z)
            path.append(z)
        means = self.out(torch.stack(path, 1).to(x.dtype)) * live[..., None]
        return torch.cat([means, nats.to(x.dtype) * first[..., None]], -1), (z, known | first.any(1, keepdim=True))

    def _find(
        self,
        x: Float[Tensor, "B T G"],
        first: Bool[Tensor, "B T"],
        seen: Bool[Tensor, "B T"],
        dt: Float[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B L"], Float[Tensor, "B 1 1"]]:
        """The latent state at each row's first step, and the nats between its density and a standard normal one."""
        if not bool(first.any()):
            return x.new_zeros(len(x), self.latent), x.new_zeros(len(x), 1, 1)
        features, _ = self.encoder(self.embedding(x.flip(1)), None, Clock(None, seen.flip(1), _backwards(seen, dt)))
        last = (features.flip(1) * first[..., None]).sum(1)
        mean, log_deviation = self.found(last).chunk(2, -1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        variance = (2 * log_deviation).exp()
        nats = 0.5 * (mean.square() + variance - 1 - 2 * log_deviation).sum(-1)
        return mean + log_deviation.exp() * noise, nats[:, None, None]


def _backwards(seen: Bool[Tensor, "B T"], dt: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The time to the next sighting, in the order of reading from the end; 1 where there is none."""
    times = dt.cumsum(1)
    later = times.masked_fill(~seen, torch.inf).flip(1).cummin(1).values
    # the soonest of all sightings strictly after each step
    after = nn.functional.pad(later[:, :-1], (1, 0), value=torch.inf)
    gap = after - times.flip(1)
    return torch.where(gap.isfinite() & seen.flip(1), gap, 1.0)
