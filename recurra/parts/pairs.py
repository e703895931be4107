"""Linear maps into complex features and out of them, that copy nothing as long as a sequence.

Weights are kept with all real parts first, which is how papers' codes exchange them. In memory a complex number is a
pair. To put the numbers of every step in pairs costs passes over all of them, to put the weights so next to nothing.
"""

import torch
from torch.nn import functional as F

from recurra.shapes import Float, Inexact, Tensor


def paired(weight: Float[Tensor, "M *D"]) -> Float[Tensor, "M *D"]:
    """Rows that are all real parts and then all imaginary parts, as pairs of the two."""
    return weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def entering(x: Float[Tensor, "B T D"], weight: Inexact[Tensor, "N D"]) -> Inexact[Tensor, "B T N"]:
    """W x of complex W, in its precision."""
    pairs = torch.view_as_real(weight).transpose(1, 2).flatten(0, 1)
    drive = F.linear(x.to(pairs.dtype), pairs).to(pairs.dtype)
    return torch.view_as_complex(drive.unflatten(-1, (-1, 2)))


def leaving(
    h: Inexact[Tensor, "B T N"], real: Float[Tensor, "D N"], imaginary: Float[Tensor, "D N"]
) -> Float[Tensor, "B T D"]:
    """W h^r + V h^i of real W and V, in their type."""
    pairs = torch.stack([real, imaginary], -1).flatten(1)
    return F.linear(torch.view_as_real(h).flatten(-2).to(pairs.dtype), pairs)
