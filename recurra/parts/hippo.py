"""The matrix whose state is the best polynomial of all that was seen: where many state spaces start.

Gu et al. 2020, https://arxiv.org/abs/2008.07669. Everything is in float64: the eigenvectors are sensitive.
"""

import torch

from recurra.shapes import Float, Inexact, Tensor


def legs(units: int) -> Float[Tensor, "N N"]:
    r"""HiPPO-LegS: :math:`A_{nk} = -\sqrt{(2n+1)(2k+1)}` below the diagonal, :math:`-(n+1)` on it, 0 above."""
    root = (2 * torch.arange(units, dtype=torch.float64) + 1).sqrt()
    return -(torch.outer(root, root).tril(-1) + torch.arange(1.0, units + 1, dtype=torch.float64).diag())


def delay(units: int) -> Float[Tensor, "N N"]:
    r"""Of a sliding window: :math:`A_{nk} = -(2n+1)` above the diagonal, :math:`(2n+1)(-1)^{n-k+1}` elsewhere.

    Voelker et al. 2019, https://proceedings.neurips.cc/paper/2019/hash/952285b9b7e7a1be5aa7849f32ffff05-Abstract.html.
    """
    index = torch.arange(units, dtype=torch.float64)
    sign = (-1.0) ** (index[:, None] - index)
    return -(2 * index + 1)[:, None] * torch.where(index[:, None] < index, torch.ones_like(sign), sign)


def legt(units: int) -> Float[Tensor, "N N"]:
    """HiPPO-LegT: the same window over polynomials of unit length, of which every other has the other sign."""
    index = torch.arange(units, dtype=torch.float64)
    scale = (-1.0) ** index * (2 * index + 1).sqrt()
    return delay(units) * scale / scale[:, None]


def legs_normal(units: int) -> tuple[Float[Tensor, " N"], Inexact[Tensor, "N N"]]:
    r"""What is left of LegS without its part of rank one: :math:`A + P P^\top = V (-\tfrac12 + i \omega) V^*`.

    With :math:`P_n = \sqrt{n + 1/2}`, Gu et al. 2022, https://arxiv.org/abs/2111.00396. Returns :math:`\omega`, which
    comes in pairs of either sign, ascending, and the eigenvectors V in its columns.
    """
    low = (torch.arange(units, dtype=torch.float64) + 0.5).sqrt()
    normal = legs(units) + torch.outer(low, low) + 0.5 * torch.eye(units, dtype=torch.float64)
    return torch.linalg.eigh(-1j * normal)
