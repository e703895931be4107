r"""`DiagonalPlusLowRank` as a `LinearSystem` of twice as many real states, where all steps are of one length.

With :math:`v = (1 - \tfrac{\Delta}{2} \lambda)^{-1}` and
:math:`s = \tfrac{\Delta}{2} / (1 + \tfrac{\Delta}{2} p^* v p)` a step is again a diagonal and an outer product, as
:math:`1 + v (1 + \tfrac{\Delta}{2} \lambda) = 2 v`:

.. math::
    h_t = v (1 + \tfrac{\Delta}{2} \lambda)\, h_{t-1} - 2 s\, v p\, (p^* v\, h_{t-1})
    + \Delta\, v b\, x_t - \Delta s\, v p\, (p^* v\, b)\, x_t

S4's own kernel, by a Cauchy product, is of one length and knows neither a state nor a reset. Blocks need the powers of
the matrix for what they read of the states before them, and with those their kernel is there already.
"""

import torch

from recurra.ops.dplr import DiagonalPlusLowRank
from recurra.ops.linear_system import LinearSystem, chunk as linear_system_chunk
from recurra.ops.steps import gaps
from recurra.shapes import Float, Inexact, Tensor, widen


def declines(record: DiagonalPlusLowRank, state: Tensor) -> str | None:
    """Steps must be of one length; then as a linear system does."""
    if record.step.ndim > 1:
        return "steps differ in length"
    return "a single step" if record.x.shape[1] == 1 else gaps(record.valid)


def scan(
    record: DiagonalPlusLowRank, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    read, last = linear_system_chunk.scan(_lowered(record), _real(state))
    return read[..., 0], torch.complex(*last.chunk(2, -1))


def _real(x: Inexact[Tensor, "... N"]) -> Float[Tensor, "... M"]:
    """Real parts, then imaginary parts."""
    return torch.cat([x.real, x.imag], -1)


def _lowered(record: DiagonalPlusLowRank) -> LinearSystem:
    """In float64, as the powers will be taken: slow decays keep their digits."""
    half, diagonal, low, write, read = (widen(x, torch.float64) for x in record[1:6])
    half = half[:, None] / 2
    inverse = 1 / (1 - half * diagonal)
    turned = inverse * low
    reads = _both(inverse * low.conj())
    share = half / (1 + half * (reads * _real(low)).sum(-1, keepdim=True))
    kept, column = (1 + half * diagonal) * inverse, -2 * share * turned
    real, imaginary = torch.diag_embed(kept.real), torch.diag_embed(kept.imag)
    matrix = torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1)
    matrix = matrix + _real(column)[..., None] * reads[:, None]
    written = 2 * half * inverse * write - 2 * half * share * turned * (reads * _real(write)).sum(-1, keepdim=True)
    return LinearSystem(record.x, matrix, _real(written), _both(read)[:, None], record.reset, record.valid)


def _both(weight: Inexact[Tensor, "D N"]) -> Float[Tensor, "D M"]:
    """What sums real and imaginary parts to the weighted sum of numbers and their conjugates."""
    return 2 * _real(weight.conj())
