"""Long filters, one a feature, in two forms: of a fixed length, made by a small net, and endless, as a sum of modes.

Both give a record for each filter, so that a mixer does not see which it runs.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.ops import ShortConv, StateSpace
from recurra.parts.linear import within
from recurra.shapes import Float, Inexact, Tensor, state_zeros, wide

Records = list[Callable[[Tensor], Any]]


class ImplicitFilters(nn.Module):
    r"""Filters of L taps, whose values are a net's answers to the taps' positions, fading at a rate a feature.

    .. math::
        k_{i} = W_n \sin(f \odot (W_{n-1} \cdots \sin(f \odot (W_1 e_i + b_1)) + b_{n-1})) \odot e^{-\delta i / (L - 1)}

    with e the position, as a fraction of the length, and its cosines and sines. :math:`\delta` is fixed, even between
    :math:`\log 100 / 1.5` and :math:`\log 100 / 0.3`: Poli et al. 2023, https://arxiv.org/abs/2302.10866.

    Args:
        width: features (D).
        count: filters of each feature.
        length: taps (L), at least 2.
        hidden: features inside the net.
        bands: cosines and sines of a position.
    """

    def __init__(self, width: int, count: int, length: int, *, hidden: int = 64, bands: int = 8) -> None:
        super().__init__()
        if length < 2:
            raise ValueError(f"length is {length}: a long filter has at least 2 taps")
        self.count, self.length, self.bands = count, length, bands
        sizes = [2 * bands + 1, hidden, hidden, hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.last = nn.Linear(hidden, count * width, bias=False)
        self.frequency = nn.Parameter(torch.ones(hidden))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B J D"], ...]:
        """No inputs yet: the last L - 1 of every filter's, zeros."""
        width, past = self.last.out_features // self.count, self.length - 1
        return tuple(state_zeros(self.last.weight, batch, past, width) for _ in range(self.count))

    def kernels(self) -> Float[Tensor, "I D L"]:
        """All taps of every filter, the present input's first."""
        real, device = wide(self.last.weight), self.last.weight.device
        time = torch.linspace(0, 1, self.length, dtype=real, device=device)[:, None]
        bands = torch.linspace(1e-4, self.bands - 1, self.bands, dtype=real, device=device)
        angle = 2 * math.pi / self.length * torch.arange(self.length, dtype=real, device=device)[:, None] * bands
        rate = math.log(100) * torch.linspace(1 / 1.5, 1 / 0.3, self.last.out_features, dtype=real, device=device)
        z = torch.cat([time, angle.cos(), -angle.sin()], 1)
        # a filter in bfloat16 would be another filter, though the inputs may be lowered
        with torch.autocast(device.type, enabled=False):
            for layer in self.layers:
                z = (self.frequency * within(real, layer, z)).sin()
            z = within(real, self.last, z) * (-time * rate).exp()
        # a feature's filters lie side by side
        return z.unflatten(1, (-1, self.count)).permute(2, 1, 0)

    def records(self) -> Records:
        """For each filter, what makes its record of its input."""
        return [partial(ShortConv, weight=kernel.flip(1), silu=False) for kernel in self.kernels()]


class ModalFilters(nn.Module):
    r"""Filters without end, each a sum of N damped waves: a recurrence with N states a feature.

    .. math::  k_i = \operatorname{Re} \sum_n c_n \lambda_n^i \qquad \lambda = \exp(-e^{\rho} + i \theta)

    Massaroli et al. 2023, https://arxiv.org/abs/2310.18780.

    Args:
        width: features (D).
        count: filters of each feature.
        units: modes of a filter (N).
    """

    def __init__(self, width: int, count: int, units: int) -> None:
        super().__init__()
        if units < 1:
            raise ValueError(f"units is {units}: a filter has at least one mode")
        # half-lives from 1 to 1000 steps, and turns of every speed
        rates = torch.logspace(-3, 0, units).log()
        self.log_rate = nn.Parameter(rates.repeat(count, width, 1))
        self.frequency = nn.Parameter(torch.pi * torch.rand(count, width, units))
        self.read = nn.Parameter(torch.randn(count, width, units, 2) * (2 * units) ** -0.5)

    def initial_state(self, batch: int) -> tuple[Inexact[Tensor, "B D N"], ...]:
        """Every mode of every filter at rest."""
        shape = (batch, *self.log_rate.shape[1:])
        kind, device = wide(self.log_rate).to_complex(), self.log_rate.device
        return tuple(torch.zeros(shape, dtype=kind, device=device) for _ in self.log_rate)

    def records(self) -> Records:
        """For each filter, what makes its record of its input."""
        real = wide(self.log_rate)
        log_decay = torch.complex(-self.log_rate.to(real).exp(), self.frequency.to(real))
        read = torch.view_as_complex(self.read.to(real))
        return [partial(StateSpace, log_decay=a, read=c) for a, c in zip(log_decay, read, strict=True)]

    @torch.no_grad()
    def imitate(self, kernels: Float[Tensor, "I D L"]) -> Float[Tensor, "I D"]:
        """Become modes near other filters. Returns each one's error, its norm over that of the filter.

        Modes do not end where a filter does: the error counts what they say for as long again.
        """
        fits = [[_fit(kernel, self.read.shape[2]) for kernel in rows.double()] for rows in kernels]
        log_decay = torch.stack([torch.stack([a for a, _ in row]) for row in fits])
        read = torch.stack([torch.stack([c for _, c in row]) for row in fits])
        self.log_rate.copy_((-log_decay.real).log())
        self.frequency.copy_(log_decay.imag)
        self.read.copy_(torch.view_as_real(read))
        steps = torch.arange(2 * kernels.shape[2], device=kernels.device)
        made = ((log_decay[..., None] * steps).exp() * read[..., None]).sum(2).real
        return (made - F.pad(kernels, (0, kernels.shape[2]))).norm(dim=2) / kernels.norm(dim=2)


def _fit(kernel: Float[Tensor, " L"], units: int) -> tuple[Inexact[Tensor, " N"], Inexact[Tensor, " N"]]:
    r"""The modes of one filter: logarithms of :math:`\lambda`, and c, the best for those.

    The Hankel matrix of the filter is a product of what its modes write and what they read; one step later is the
    same with one :math:`\lambda` more, which is therefore a matrix between singular vectors (Kung 1978; ESPRIT, Roy &
    Kailath 1989). Waves that grow are put on the circle of radius :math:`1 - 10^{-9}`.
    """
    rows = len(kernel) // 2
    # the zeros after the end belong to the filter: without them modes would be found that never fade
    kernel = F.pad(kernel, (0, len(kernel)))
    hankel = kernel[: 3 * rows].unfold(0, rows, 1)
    left = torch.linalg.eigh(hankel.T @ hankel).eigenvectors[:, max(rows - 2 * units, 1) :]
    shift = torch.linalg.lstsq(left[:-1], left[1:], driver="gelsd").solution
    poles = torch.linalg.eigvals(shift)
    # of conjugates the real part needs one
    poles = poles[poles.imag >= -1e-12]
    angle, radius = poles.angle(), poles.abs().clamp(1e-12, 1 - 1e-9)
    log_decay = torch.complex(radius.log(), angle)
    read = _weights(kernel, log_decay)
    if len(poles) > units:
        steps = torch.arange(len(kernel), device=kernel.device)[:, None]
        energy = (steps * log_decay).exp().abs().square().sum(0) * read.abs().square()
        log_decay = log_decay[energy.argsort(descending=True)[:units]]
        read = _weights(kernel, log_decay)
    # fewer modes than asked for: the rest die at once and say nothing
    missing = units - len(log_decay)
    return F.pad(log_decay, (0, missing), value=-10.0), F.pad(read, (0, missing))


def _weights(kernel: Float[Tensor, " L"], log_decay: Inexact[Tensor, " N"]) -> Inexact[Tensor, " N"]:
    """The c of least squares for given modes."""
    powers = (torch.arange(len(kernel), device=kernel.device)[:, None] * log_decay).exp()
    basis = torch.cat([powers.real, -powers.imag], 1)
    weights = torch.linalg.lstsq(basis, kernel[:, None], driver="gelsd").solution[:, 0]
    return torch.complex(*weights.chunk(2))
