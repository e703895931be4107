"""Linear oscillatory state spaces."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least, one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Block, LinearSystem, Scan
from recurra.parts.gates import bent
from recurra.shapes import Float, Tensor, wide

FORMS = ("im", "imex", "damped")


class LinOSS(Mixer):
    r"""A long memory made of springs that do not touch, forced by what comes in: linear, so all steps run at once.

    .. math::
        \dot z = -A\, y - G z + B x \qquad \dot y = z \qquad
        s_t = \operatorname{Re}(C\, y_t) + d \odot x_t \qquad
        o_t = \operatorname{GLU}(W \operatorname{gelu}(s_t) + \beta)

    with A and G diagonal, one spring's stiffness and damping each, and the mixer's output o. A step of
    :math:`\Delta_t`, which is :math:`\sigma(\delta)` times the clock's `dt`, 1 where it is not given, is

    .. math::
        z_t = z_{t-1} + \Delta_t (B x_t - A y_{t-1}) - \Delta_t G z_t \qquad y_t = y_{t-1} + \Delta_t z_t

    where `form` is "imex" (G = 0, and energy is kept) or "damped"; "im" (G = 0) has :math:`y_t` in place of
    :math:`y_{t-1}`, is stable at any step, and forgets faster what swings faster. Rusch & Rus 2025,
    https://arxiv.org/abs/2410.03943; damped: Boyer et al. 2025, https://arxiv.org/abs/2505.12171, with A kept between
    the bounds within which a step of :math:`\Delta_t` swings. A and G are :math:`\operatorname{relu}` of what is
    trained; B and C are complex, and so is the state. Unlike the papers a step may be of any length, and the norm,
    dropout and skip around the layer are left to the block. A step of "imex" blows up where :math:`\Delta_t^2 A`
    exceeds 4. State: (z, y) of each spring's real and imaginary part, `(B, 2, N, 2)`, float32.

    Args:
        width: features in and out (D).
        units: springs (N); as many as `width` if not given.
        form: how time is stepped: "im", "imex" or "damped".

    Raises:
        ValueError: `form` is another, or `units` is less than 1.
    """

    timed = True

    def __init__(self, width: int, *, units: int | None = None, form: str = "im") -> None:
        super().__init__()
        units = width if units is None else units
        one_of(FORMS, form=form)
        at_least(1, units=units)
        self.form = form
        stiffness, damping, pace = _damped(units) if form == "damped" else (torch.rand(units), None, torch.rand(units))
        self.stiffness, self.pace = nn.Parameter(stiffness), nn.Parameter(pace)
        self.damping = None if damping is None else nn.Parameter(damping)
        # real parts, then imaginary parts
        self.write = nn.Linear(width, 2 * units, bias=False)
        self.read = nn.Linear(2 * units, width, bias=False)
        self.skip = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, 2 * width)
        for weight, size in ((self.write.weight, width), (self.read.weight, units)):
            nn.init.uniform_(weight, -(size**-0.5), size**-0.5)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B C N P"]:
        return self.zeros(batch, 2, len(self.pace), 2)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B C N P"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B C N P"]]:
        drive = self.write(x)
        kind, real = drive.dtype, wide(x, self.pace)
        drive, step = drive.to(real), self.pace.to(real).sigmoid()[None]
        dt = None if clock is None else clock.dt
        if dt is None:
            position, state = self._even(drive, *self.steps(step), state, clock)
        else:
            # real and imaginary parts share a matrix
            matrix, weight = self.steps(dt.to(real)[..., None, None] * step)
            h, state = self.scan(Block(matrix, weight * drive.unflatten(-1, (2, -1))[..., None]), state, clock)
            position = h[..., 1].flatten(-2)
        return F.glu(self.out(bent(self.read(position.to(kind)), x, self.skip)), -1), state

    def _even(
        self, drive: Float[Tensor, "B T M"], matrix: Tensor, weight: Tensor, state: Tensor, clock: Clock | None
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B C N P"]]:
        """Positions and state where all steps are of one length: then no velocity need exist at every step."""
        matrix, weight = (p.expand(2, *p.shape[1:]).flatten(0, 1) for p in (matrix, weight))
        read = torch.eye(2, dtype=weight.dtype, device=weight.device)[1:].expand(len(weight), -1, -1)
        position, last = self.scan(LinearSystem(drive, matrix, weight, read), state.flatten(1, 2), clock)
        return position[..., 0], last.view_as(state)

    def steps(self, step: Float[Tensor, "*S N"]) -> tuple[Float[Tensor, "*S N 2 2"], Float[Tensor, "*S N 2"]]:
        """What a step of that length makes of (z, y), and of what drives it."""
        stiffness, one = F.relu(self.stiffness.to(step)), torch.ones_like(step)
        shrink = one
        if self.form == "im":
            shrink = 1 / (1 + step.square() * stiffness)
        elif self.damping is not None:
            size = 1 + step * F.relu(self.damping.to(step))
            low, high = ((size.sqrt() + sign) ** 2 / step.square() for sign in (-1, 1))
            stiffness, shrink = torch.minimum(torch.maximum(stiffness, low), high), 1 / size
        # the velocity first, then the position moves with it
        velocity = torch.stack([shrink, -step * stiffness * shrink], -1)
        position = torch.stack([step * shrink, 1 - step.square() * stiffness * shrink], -1)
        weight = torch.stack([step * shrink, step.square() * shrink], -1)
        return torch.stack([velocity, position], -2), weight


def _damped(units: int) -> tuple[Tensor, Tensor, Tensor]:
    """Stiffness, damping and pace of springs whose steps shrink by 0.9 to 1 and turn by 0 to pi, evenly over the disc.

    A step shrinks by 1 / sqrt(S), with S = 1 + step damping, and turns by an angle whose cosine gives the stiffness.
    """
    pace = 0.5 * torch.randn(units)
    step, shrink = pace.sigmoid(), (torch.rand(units) * (1 - 0.9**2) + 0.9**2).sqrt()
    size, angle = shrink**-2, math.pi * torch.rand(units)
    return (1 + size - 2 * size.sqrt() * angle.cos()) / step.square(), (size - 1) / step, pace
