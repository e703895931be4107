"""GateLoop: linear attention whose every channel fades and turns as the input says."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.gates import gated
from recurra.shapes import Float, Inexact, Tensor


def _coefficients(key: Tensor, value: Tensor, magnitude: Tensor, angle: Tensor) -> tuple:
    """What is kept, turned, and what is written, both complex."""
    size, write = torch.sigmoid(magnitude), key * value
    return size * angle.cos(), size * angle.sin(), write, torch.zeros_like(write)


def _recall(real: Tensor, imaginary: Tensor, query: Tensor) -> Tensor:
    return real * query


COEFFICIENTS, RECALL = Map("gateloop", _coefficients, 2, complex=True), Map("gateloop_read", _recall)


class GateLoop(Mixer):
    r"""Linear attention in which the input chooses, for every key channel, how much is forgotten and how far it turns.

    .. math::
        S_t = \operatorname{diag}(a_t)\, S_{t-1} + k_t v_t^\top \qquad
        a_t = \sigma(\alpha_t)\, e^{i \phi_t} \qquad
        y_t = W_o \bigl(\operatorname{Re}(S_t^\top q_t) \odot \operatorname{silu}(W_g x_t)\bigr)

    with q, k, v, :math:`\alpha` and :math:`\phi` linear in x. Katsch 2023, https://arxiv.org/abs/2311.01927. Heads of
    one feature, the default, are elementwise. A sigmoid of the magnitude and the angle as it is are the paper's; that
    these are two real maps is how its notation is read here: others have one complex map z and
    :math:`a = \sigma(|z|)\, z / |z|`, which forgets at most half at a step. Unlike the paper q, k and v are real.
    State: S, `(B, H, K, K)`, complex64, K = `size` and H = width / K. All T of them are in memory at once, T K width
    numbers: large heads are costly.

    Args:
        width: features in and out (D).
        size: features of a head (K); divides `width`.

    Raises:
        ValueError: `size` does not divide `width`.
    """

    def __init__(self, width: int, *, size: int = 1) -> None:
        super().__init__()
        if size < 1 or width % size:
            raise ValueError(f"width is {width}: it must be a multiple of size, which is {size}")
        self.size = size
        # query, key, value, magnitude, angle, gate
        self.project = nn.Linear(width, 6 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Inexact[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        zeros = self.zeros(batch, self.out.in_features // self.size, self.size, self.size)
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B H K V"]]:
        *parts, gate = self.project(x).chunk(6, -1)
        # no complex numbers are narrower than two float32
        parts = (part.to(state.real.dtype).unflatten(-1, (-1, self.size)) for part in parts)
        query, key, value, magnitude, angle = (part[..., None] for part in parts)
        decay, write = pointwise(COEFFICIENTS, key, value.mT, magnitude, angle)
        memory, state = self.scan(Diag(decay.expand_as(write), write), state, clock)
        read = pointwise(RECALL, memory, query).sum(-2).flatten(-2)
        return self.out(gated(read.to(x.dtype), gate)), state
