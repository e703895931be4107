"""Linear maps into complex features and out of them, that copy nothing as long as a sequence.

Weights are kept with all real parts first, which is how papers' codes exchange them. In memory a complex number is a
pair. To put the numbers of every step in pairs costs passes over all of them, to put the weights so next to nothing.
"""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.parts.linear import plain
from recurra.shapes import Float, Inexact, Tensor, wide


def paired(weight: Float[Tensor, "M *D"]) -> Float[Tensor, "M *D"]:
    """Rows that are all real parts and then all imaginary parts, as pairs of the two."""
    return weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def entering(x: Float[Tensor, "B T D"], write: nn.Linear, factor: Inexact[Tensor, "*B N"]) -> Inexact[Tensor, "B T N"]:
    """`factor` times W x of complex W, in the wide type; `write` maps to all real parts and then all imaginary ones."""
    real = wide(x)
    if not plain(write):
        return factor * torch.complex(*write(x).to(real).chunk(2, -1))
    weight = torch.complex(*write.weight.to(real).chunk(2))
    # one factor for all steps: it is W that is multiplied, which has fewer numbers than W x
    pairs = torch.view_as_real(factor[:, None] * weight if factor.ndim == 1 else weight).transpose(1, 2).flatten(0, 1)
    drive = F.linear(x.to(real), pairs).to(real)
    drive = torch.view_as_complex(drive.unflatten(-1, (-1, 2)))
    return drive if factor.ndim == 1 else factor * drive


def leaving(h: Inexact[Tensor, "B T N"], read: nn.Linear, kind: torch.dtype, sign: int = 1) -> Float[Tensor, "B T D"]:
    """What `read`, whose type is `kind`, makes of all real parts and then all imaginary parts, times `sign`."""
    if not plain(read):
        return read(torch.cat([h.real, sign * h.imag], -1).to(kind))
    real, imaginary = read.weight.chunk(2, -1)
    pairs = torch.stack([real, sign * imaginary], -1).flatten(1)
    return F.linear(torch.view_as_real(h).flatten(-2).to(kind), pairs)
