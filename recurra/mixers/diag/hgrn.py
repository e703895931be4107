"""HGRN: a gated linear recurrence with turning states, whose upper layers may not forget quickly."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.bounds import lower_bound as bound_of
from recurra.parts.gates import gated
from recurra.parts.linear import plain
from recurra.parts.pairs import paired
from recurra.shapes import Float, Inexact, Tensor


@functools.cache
def _coefficients(bound: float) -> Map:
    """What is kept, turned, and what is written, both complex."""

    def coefficients(forget: Tensor, real: Tensor, imaginary: Tensor, cosine: Tensor, sine: Tensor) -> tuple:
        decay = bound + (1 - bound) * F.sigmoid(forget)
        # 1 - lambda as a sigmoid of its own keeps its precision where lambda is near 1
        write = (1 - bound) * F.sigmoid(-forget)
        return decay * cosine, decay * sine, write * F.silu(real), write * F.silu(imaginary)

    return Map("hgrn", coefficients, 2, complex=True)


class HGRN(Mixer):
    r"""A running mean that also turns, and keeps at least as much of itself at each step as its layer's bound says.

    .. math::
        \lambda_t = \gamma + (1 - \gamma)\, \sigma(W_\lambda x_t + \beta_\lambda) \qquad
        h_t = \lambda_t \odot e^{i\theta} \odot h_{t-1} + (1 - \lambda_t) \odot (u_t + i\, v_t)
        \\
        [u_t, v_t] = \operatorname{silu}(W_c x_t + \beta_c) \qquad
        y_t = W_o \bigl(\operatorname{norm}([\operatorname{Re} h_t, \operatorname{Im} h_t])
        \odot \operatorname{silu}(W_g x_t + \beta_g)\bigr) + \beta_o

    with norm a layer norm and :math:`\theta` an angle for every channel, which starts at
    :math:`10000^{-2n/D}`. Qin et al. 2023, https://arxiv.org/abs/2311.04823. As in the authors' code the gate comes
    after the norm. Unlike the paper the bound :math:`\gamma` is a number, where the authors' shares of the layers
    start, and is not learned by all layers together. State: h, `(B, D)`, complex64.

    Args:
        width: features in and out, and complex units (D).
        lower_bound: :math:`\gamma`, in [0, 1); None: layer / depth.
        layer: which layer of the stack this is, from 0.
        depth: layers in the stack.

    Raises:
        ValueError: `lower_bound` is outside [0, 1), or `layer` is not one of `depth`.
    """

    def __init__(self, width: int, *, lower_bound: float | None = None, layer: int = 0, depth: int = 1) -> None:
        super().__init__()
        self.lower_bound = bound_of(lower_bound, layer, depth)
        # real parts, then imaginary parts
        self.candidate, self.gate = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.forget = nn.Linear(width, width)
        self.angle = nn.Parameter(10000.0 ** (-2 * torch.arange(width) / width))
        self.norm = nn.LayerNorm(2 * width)
        self.out = nn.Linear(2 * width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Inexact[Tensor, "B D"]:
        """Nothing remembered: zeros."""
        zeros = self.zeros(batch, len(self.angle))
        return torch.complex(zeros, zeros)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Inexact[Tensor, "B D"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D"]]:
        # no complex numbers are narrower than two float32
        real = state.real.dtype
        forget, angle = self.forget(x).to(real), self.angle.to(real)
        candidate = self.candidate(x).to(real).chunk(2, -1)
        decay, drive = pointwise(_coefficients(self.lower_bound), forget, *candidate, angle.cos(), angle.sin())
        h, state = self.scan(Diag(decay, drive), state, clock)
        if not plain(self.gate, self.out) or not plain(self.norm, kind=nn.LayerNorm):
            normal = self.norm(torch.cat([h.real, h.imag], -1).to(x.dtype))
            return self.out(gated(normal, self.gate(x))), state
        # numbers stay in pairs, as they lie in memory: it is the weights that are put so
        pairs, norm = torch.view_as_real(h).flatten(-2).to(x.dtype), self.norm
        normal = F.layer_norm(pairs, norm.normalized_shape, paired(norm.weight), paired(norm.bias), norm.eps)
        gate = F.linear(x, paired(self.gate.weight), paired(self.gate.bias))
        return F.linear(gated(normal, gate), paired(self.out.weight.mT).mT, self.out.bias), state
