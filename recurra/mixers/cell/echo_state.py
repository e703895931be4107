"""The echo state network: a reservoir that is drawn once and never trained, and a read-out that is."""

import torch
from torch import nn

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.constants import constants
from recurra.parts.ridge import ridge
from recurra.shapes import Float, Tensor


def echo_state(drive: Vectors, recur: Vectors, state: Vectors, leak: Tensor) -> tuple[Tensor, Vectors]:
    """Part of the way to what inputs and neighbours ask for."""
    (h,) = state
    h = (1 - leak) * h + leak * torch.tanh(drive[0] + recur[0])
    return h, (h,)


ECHO_STATE = Rule("echo_state", echo_state, 1, 1, params=1)


class EchoState(Mixer):
    r"""A large random network left as it was drawn, in which inputs echo, and a linear layer that learns to read it.

    .. math::
        h_t = (1 - a)\, h_{t-1} + a \tanh(W x_t + R h_{t-1} + b) \qquad y_t = C\, [h_t, x_t] + d

    Jaeger 2001, https://www.ai.rug.nl/minds/uploads/EchoStatesTechRep.pdf, with the leak of Jaeger et al. 2007,
    https://doi.org/10.1016/j.neunet.2007.04.016. W, R and b are buffers, drawn from `seed`: W and b even between
    plus and minus `scale`, R normal where it is not zero, its largest eigenvalue's modulus brought to `radius`. Only C
    and d are trained: by gradients as everything else, or by `fit` at once. Unlike the paper nothing is fed back from
    the output. State: (h,), `(B, N)`, float32.

    Args:
        width: features in and out (D).
        units: of the reservoir (N); four times `width` if not given.
        radius: the spectral radius of R; above 1 an input may echo for ever.
        leak: a, in (0, 1]: how far a unit moves in a step.
        scale: size of W and b.
        density: the share of R that is not zero, in (0, 1].
        seed: what the reservoir is drawn from.

    Raises:
        ValueError: `units` is less than 1, `radius` or `scale` is not greater than 0, or `leak` or `density` is
            outside (0, 1].
    """

    input_weight: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(
        self,
        width: int,
        *,
        units: int | None = None,
        radius: float = 0.9,
        leak: float = 0.5,
        scale: float = 0.5,
        density: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        units = 4 * width if units is None else units
        at_least(1, units=units)
        greater_than(0, radius=radius, scale=scale)
        for name, value in (("leak", leak), ("density", density)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} is {value}: it must be greater than 0 and at most 1")
        self.leak = leak
        draw = torch.Generator().manual_seed(seed)
        recurrent = torch.randn(units, units, generator=draw)
        recurrent = recurrent * (torch.rand(units, units, generator=draw) < density)
        largest = torch.linalg.eigvals(recurrent).abs().max()
        # a reservoir so small and sparse that nothing in it returns has no radius to scale
        self.register_buffer("recurrent", recurrent * torch.where(largest > 0, radius / largest, 1))
        self.register_buffer("input_weight", scale * (2 * torch.rand(units, width, generator=draw) - 1))
        self.register_buffer("bias", scale * (2 * torch.rand(units, generator=draw) - 1))
        self.read = nn.Linear(units + width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N"]]:
        return (self.zeros(batch, len(self.bias)),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B N"]]]:
        features, state = self._features(x, state, clock)
        return self.read(features), state

    @torch.no_grad()
    def fit(
        self,
        x: Float[Tensor, "B T D"],
        target: Float[Tensor, "B T D"],
        clock: Clock | None = None,
        *,
        penalty: float = 1e-6,
        washout: int = 0,
    ) -> None:
        """Set the read-out to what reads `target` from `x` with the least error: one pass, in closed form.

        Args:
            x: inputs; every row begins at the start.
            target: what the output should be.
            clock: steps that did not happen are left out.
            penalty: of the read-out's weights, in squares of the targets' unit.
            washout: steps at each row's beginning that are not learned from: they still echo the start.

        Raises:
            ValueError: `penalty` is not greater than 0, or nothing is left to learn from.
        """
        learned = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if clock is not None and clock.valid is not None:
            clock, order = clock.aligned()
            learned = learned if clock.valid is None else clock.valid
            x, target = (part.gather(1, order[..., None].expand_as(part)) for part in (x, target))
        features, _ = self._features(x, self.initial_state(len(x)), clock)
        learned = learned & (learned.cumsum(1) > washout)
        weight, bias = ridge(features[learned], target[learned], penalty)
        self.read.weight.copy_(weight)
        self.read.bias.copy_(bias)

    def _features(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T M"], tuple[Float[Tensor, "B N"]]]:
        """What the read-out sees: the reservoir, and the input itself."""
        params = constants(x, len(self.bias), self.leak)
        record = Cell(ECHO_STATE, x, self.recurrent[None, None], params, input_weight=self.input_weight, bias=self.bias)
        h, (last,) = self.scan(record, state, clock)
        return torch.cat([h, x], -1), (last,)
