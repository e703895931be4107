"""Recurrent operators that keep lengths: however often one is applied, it makes nothing fade and nothing explode.

Each holds its parameters and writes its matrix out when called, once for all steps of a sequence: a dense product is
what compiled cells have, and chains of reflections or rotations step by step would cost many small calls at each.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.shapes import Float, Int, Tensor, wide


class Reflections(nn.Module):
    r"""An orthogonal matrix made of mirrors, :math:`Q = H_1 H_2 \cdots H_m` with :math:`H_k = I - 2 u_k u_k^\top`.

    .. math::  Q = I - U T^{-1} U^\top \qquad T = \operatorname{triu}(U^\top U, 1) + \tfrac12 I

    u has length one, and is zero before its k-th entry; one that is zero altogether is no mirror. One
    mirror fewer than there are units reach every orthogonal matrix of determinant :math:`(-1)^m`. Mhammedi et al. 2017,
    https://arxiv.org/abs/1612.00188.

    Args:
        units: N.
        count: m.

    Raises:
        ValueError: `count` is not at least 1 and below `units`.
    """

    def __init__(self, units: int, count: int) -> None:
        super().__init__()
        if not 1 <= count < units:
            raise ValueError(f"reflections is {count}: it must be at least 1 and less than the units, {units}")
        # only directions matter: they start even over all that each mirror may have
        self.mirrors = nn.Parameter(F.normalize(torch.randn(units, count).tril(), dim=0))

    def forward(self) -> Float[Tensor, "N N"]:
        mirrors = F.normalize(self.mirrors.to(wide(self.mirrors)).tril(), dim=0)
        units, count = mirrors.shape
        eye = torch.eye(units, dtype=mirrors.dtype, device=mirrors.device)
        # products in bfloat16 would be no mirrors
        with torch.autocast(mirrors.device.type, enabled=False):
            inner = (mirrors.T @ mirrors).triu(1) + eye[:count, :count] / 2
            return eye - mirrors @ torch.linalg.solve_triangular(inner, mirrors.T, upper=True)


class Rotations(nn.Module):
    r"""An orthogonal matrix made of layers of rotations, each of two neighbouring units.

    .. math::
        Q = G_m \cdots G_2 G_1 \qquad
        \begin{pmatrix} h'_i \\ h'_{i+1} \end{pmatrix} =
        \begin{pmatrix} \cos\theta & \sin\theta \\ -\sin\theta & \cos\theta \end{pmatrix}
        \begin{pmatrix} h_i \\ h_{i+1} \end{pmatrix}

    Odd layers pair units 1 and 2, 3 and 4, ...; even layers 2 and 3, 4 and 5, .... A unit without a neighbour stays.
    As many layers as units reach every rotation: Jing et al. 2017, https://arxiv.org/abs/1612.05231. Angles start
    anywhere.

    Args:
        units: N.
        layers: m.

    Raises:
        ValueError: there are fewer than 2 units, or no layers.
    """

    def __init__(self, units: int, layers: int) -> None:
        super().__init__()
        if units < 2 or layers < 1:
            raise ValueError(f"there are {units} units and {layers} rotations: there must be at least 2 and 1")
        self.units = units
        pairs = [(units - layer % 2) // 2 for layer in range(layers)]
        self.angles = nn.ParameterList(nn.Parameter(_angles(count)) for count in pairs)

    def forward(self) -> Float[Tensor, "N N"]:
        first = self.angles[0]
        matrix = torch.eye(self.units, dtype=wide(first), device=first.device)
        for layer, angles in enumerate(self.angles):
            start = layer % 2
            stop = start + 2 * len(angles)
            one, two = matrix[start:stop].unflatten(0, (-1, 2)).unbind(1)
            cos, sin = (f(angles.to(matrix.dtype))[:, None] for f in (torch.cos, torch.sin))
            turned = torch.stack([cos * one + sin * two, cos * two - sin * one], 1).flatten(0, 1)
            matrix = torch.cat([matrix[:start], turned, matrix[stop:]])
        return matrix


class FourierUnitary(nn.Module):
    r"""A unitary matrix of n complex units out of diagonals, mirrors and Fourier transforms, as a real one of 2n.

    .. math::  W = D_3 R_2 \mathcal F^{-1} D_2 \Pi R_1 \mathcal F D_1

    with :math:`D = \operatorname{diag}(e^{i\theta})`, :math:`R = I - 2 v v^* / v^* v`, F the unitary Fourier transform
    and :math:`\Pi` a permutation drawn once and kept: 7 n numbers to learn. Arjovsky et al. 2016,
    https://arxiv.org/abs/1511.06464. Units come as all real parts, then all imaginary ones. As in the paper angles
    start anywhere and mirrors even over [-1, 1].

    Args:
        units: n, complex.

    Raises:
        ValueError: there are no units.
    """

    order: Int[Tensor, " n"]

    def __init__(self, units: int) -> None:
        super().__init__()
        if units < 1:
            raise ValueError(f"there are {units} units: there must be at least 1")
        self.angles = nn.Parameter(torch.stack([_angles(units) for _ in range(3)]))
        # real and imaginary parts
        self.mirrors = nn.Parameter(torch.empty(2, units, 2).uniform_(-1, 1))
        self.register_buffer("order", torch.randperm(units))

    def forward(self) -> Float[Tensor, "N N"]:
        real = wide(self.angles)
        angles = self.angles.to(real)
        first, second, third = torch.polar(torch.ones_like(angles), angles)[..., None].unbind(0)
        one, two = torch.view_as_complex(self.mirrors.to(real)).unbind(0)
        matrix = torch.fft.fft(torch.diag(first[:, 0]), dim=0, norm="ortho")
        matrix = second * _reflect(one, matrix)[self.order]
        matrix = third * _reflect(two, torch.fft.ifft(matrix, dim=0, norm="ortho"))
        return torch.cat([torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)])


def _angles(count: int) -> Float[Tensor, " _"]:
    return torch.empty(count).uniform_(-math.pi, math.pi)


def _reflect(mirror: Tensor, matrix: Tensor) -> Tensor:
    """(I - 2 v v* / |v|^2) M; a mirror of zeros does nothing."""
    length = torch.view_as_real(mirror).square().sum().clamp_min(torch.finfo(mirror.dtype).tiny)
    return matrix - (2 / length) * torch.outer(mirror, mirror.conj() @ matrix)
