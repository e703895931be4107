"""The continuous-time rate network of neuroscience."""

import math

import torch
from torch import nn

from recurra.checks import at_least, one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.elapsed import elapsed, timed_drive
from recurra.parts.noise import normal
from recurra.shapes import Float, Int, State, Tensor, wide


def ctrnn_tanh(drive: Vectors, recur: Vectors, state: Vectors, log_tau: Tensor) -> tuple[Tensor, Vectors]:
    """Rates between -1 and 1."""
    return _leak(torch.tanh(drive[0] + recur[0]), drive[1], state, log_tau)


def ctrnn_relu(drive: Vectors, recur: Vectors, state: Vectors, log_tau: Tensor) -> tuple[Tensor, Vectors]:
    """Rates of at least 0."""
    return _leak(torch.relu(drive[0] + recur[0]), drive[1], state, log_tau)


def _leak(target: Tensor, step: Tensor, state: Vectors, log_tau: Tensor) -> tuple[Tensor, Vectors]:
    """Part of the way to the target: the share that time constants leave to a step."""
    (rate,) = state
    rate = rate - torch.expm1(-step * torch.exp(-log_tau)) * (target - rate)
    return rate, (rate,)


RULES = {
    "tanh": Rule("ctrnn_tanh", ctrnn_tanh, 2, 1, params=1),
    "relu": Rule("ctrnn_relu", ctrnn_relu, 2, 1, params=1),
}


class CTRNN(Mixer):
    r"""A recurrent network in continuous time: every unit moves towards what its inputs ask for, at a pace of its own.

    .. math::
        \tau\, \dot r = -r + \phi(U r + W x + b + \text{noise})

    With the input of :math:`\phi` held for a step, as long as the clock's `dt` says (1 where it is not given), that is

    .. math::
        y_t = r_t = (1 - \alpha_t)\, r_{t-1} + \alpha_t\, \phi(U r_{t-1} + W x_t + b + \sqrt{2 / \alpha_t}\,\sigma\xi_t)
        \qquad \alpha_t = 1 - e^{-\Delta_t / \tau}

    Beer 1995, https://doi.org/10.1177/105971239500300405; signs and noise as in Song et al. 2016,
    https://doi.org/10.1371/journal.pcbi.1004792. With `excitatory` every unit has one sign for all that it sends
    (Dale's law), :math:`U = |\tilde U| \operatorname{diag}(\pm 1)`, and starts with both in balance. Unlike either the
    leak of a step is exact, not Euler's, so any step is stable; and signs are held by absolute values, not by clipping.

    Noise is there in training only. It is a function of a key and of the steps that a row has counted, so a cut does
    not change it, and neither does a reset: keys are drawn when a state is made. Rates are read as they are.

    State: (r,), `(B, D)`, float32; with noise (r, key, count), key and count `(B,)`, int64.

    Args:
        width: features in and out, and units (D).
        nonlinearity: :math:`\phi`: "tanh" or "relu".
        slowest: time constants start between 1 and this, evenly in their logarithms; in units of `dt`.
        excitatory: the share of units that excite, all others inhibiting; None: no unit has a sign.
        noise: :math:`\sigma`.

    Raises:
        ValueError: no such nonlinearity, `slowest` below 1, `excitatory` not between 0 and 1 or with rates that may be
            negative, or `noise` below 0.
    """

    timed = True

    def __init__(
        self,
        width: int,
        *,
        nonlinearity: str = "tanh",
        slowest: float = 10.0,
        excitatory: float | None = None,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        one_of(RULES, nonlinearity=nonlinearity)
        at_least(1, slowest=slowest)
        at_least(0, noise=noise)
        self.rule, self.noise = RULES[nonlinearity], noise
        self.input = nn.Linear(width, width)
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(width, width)))
        self.log_tau = nn.Parameter(torch.linspace(0, 1, width) * math.log(slowest))
        self.register_buffer("sign", None)
        self.scan = Scan()
        if excitatory is not None:
            self._dale(width, excitatory, nonlinearity)

    def _dale(self, width: int, excitatory: float, nonlinearity: str) -> None:
        """Give every unit a sign, and the fewer the stronger weights."""
        exciting = round(excitatory * width)
        if not 0 < exciting < width:
            raise ValueError(f"excitatory is {excitatory}: of {width} units some must excite and some inhibit")
        if nonlinearity != "relu":
            raise ValueError("units that excite have no negative rates: excitatory needs nonlinearity='relu'")
        self.sign = torch.ones(width)
        self.sign[exciting:] = -1
        strength = torch.ones(width)
        strength[exciting:] = exciting / (width - exciting)
        with torch.no_grad():
            self.recurrent.normal_(std=width**-0.5).abs_().mul_(strength)

    def initial_state(self, batch: int) -> State:
        """Silence; with noise, a key drawn for each row by torch's own generator."""
        width = len(self.recurrent)
        if not self.noise:
            return (self.zeros(batch, width),)
        device = self.recurrent.device
        key = torch.randint(2**62, (batch,), device=device)
        return self.zeros(batch, width), key, torch.zeros(batch, dtype=torch.int64, device=device)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        (rate, *counter), drive = state, self.input(x)
        if self.noise:
            key, count = counter
            steps = torch.arange(x.shape[1], device=x.device)
            if self.training:
                drive = drive + self._noise(x, key, count[:, None] + steps, clock)
            count = count + (x.shape[1] if clock is None or clock.valid is None else clock.counts)
            counter = [key, count]
        weight = self.recurrent if self.sign is None else self.recurrent.abs() * self.sign
        drive = timed_drive(drive, len(weight), clock)
        (y, (rate,)) = self.scan(Cell(self.rule, drive, weight[None, None], self.log_tau[None]), (rate,), clock)
        return y.to(x.dtype), (rate, *counter)

    def _noise(
        self, x: Float[Tensor, "B T D"], key: Int[Tensor, " B"], count: Int[Tensor, "B T"], clock: Clock | None
    ) -> Float[Tensor, "B T D"]:
        """So strong that what it does in some time does not depend on the steps that the time falls into."""
        share = -torch.expm1(-elapsed(x, clock) * torch.exp(-self.log_tau.to(wide(x))))
        return self.noise * (2 / share).sqrt() * normal(key, count, x.shape[-1]).to(share.dtype)
