"""The online linear unit: a linear recurrence's exact influence, written out."""

from typing import Any

import torch

from recurra.mixers.diag.lru import LRU
from recurra.ops.steps import restart
from recurra.shapes import Float, Tensor
from recurra.train.errors import RunError
from recurra.train.rules.influence import Influence
from recurra.train.rules.layer import Layer, Step
from recurra.train.rules.online import OnlineRule


class LinearTraces(Influence):
    r"""Three traces of a linear recurrent unit, complex.

    .. math::  e^\lambda_t = \lambda e^\lambda_{t-1} + h_{t-1} \qquad
        e^\gamma_t = \lambda e^\gamma_{t-1} + B x_t \qquad
        e^B_t = \lambda e^B_{t-1} + e^{\gamma} x_t^\top
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        if not isinstance(layer.mixer, LRU):
            raise RunError("its traces are those of lru, written out; rtrl finds such traces for other mixers")
        self.mixer: Any = layer.mixer

    def start(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        h = self.mixer.initial_state(rows)
        return h, h.clone(), h[..., None].repeat(1, 1, self.mixer.write.in_features)

    @torch.no_grad()
    def advance(self, memory: tuple[Tensor, ...], at: Step) -> tuple[Tensor, Tensor, Tensor]:
        mixer = self.mixer
        before = at.vector if at.begins is None else restart(at.begins, at.vector)
        h = self.layer.state(before, ())
        decay = self._decay()
        real, imaginary = mixer.write(at.x).unflatten(-1, (2, -1)).unbind(-2)
        direct = mixer.log_scale.exp()[:, None] * at.x[:, None]
        of_decay, of_scale, of_write = memory
        written = torch.complex(real, imaginary).to(h)
        return decay * of_decay + h, decay * of_scale + written, decay[:, None] * of_write + direct.to(h)

    def credit(self, memory: tuple[Tensor, ...], error: Float[Tensor, "B S"]) -> Float[Tensor, "B P"]:
        mixer, (of_decay, of_scale, of_write) = self.mixer, memory
        # torch's slope in a complex number is a conjugate
        slope, decay = self.layer.state(error, ()).conj(), self._decay()
        real = (slope[..., None] * of_write).real
        imaginary = (slope[..., None] * 1j * of_write).real
        found = {
            "log_rate": (slope * of_decay * decay * -mixer.log_rate.exp()).real,
            "log_phase": (slope * of_decay * decay * 1j * mixer.log_phase.exp()).real,
            "log_scale": (slope * of_scale).real * mixer.log_scale.exp(),
            "write.weight": torch.cat([real, imaginary], 1),
        }
        nothing = {k: p.new_zeros(len(error), *p.shape) for k, p in self.layer.parameters.items()}
        return self.layer.flat({**nothing, **found}, 1).detach()

    @torch.no_grad()
    def _decay(self) -> Tensor:
        return torch.polar((-self.mixer.log_rate.exp()).exp(), self.mixer.log_phase.exp())


class OnlineLRU(OnlineRule):
    r"""Online learning of long-range dependencies: linear recurrent units whose whole past is three traces.

    .. math::  \frac{dL}{d\theta} = \sum_t \operatorname{Re}\left(\bar\delta_t \odot e^\theta_t\right)

    Zucchet et al. 2023, https://arxiv.org/abs/2305.15947. Twice an inference's memory and work. :math:`\delta_t` comes
    by backpropagation through the layers of one step; exact for the last recurrent layer, as `RTRL` is, which finds
    the same traces by differentiation. See `LinearTraces` for them.
    """

    def remember(self, layer: Layer) -> Influence:
        return LinearTraces(layer)
