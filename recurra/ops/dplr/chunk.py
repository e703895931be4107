"""`DiagonalPlusLowRank` as a `LinearSystem` of twice as many real states, where all steps are of one length.

The matrix's columns are what one step makes of each unit vector. S4's own kernel, by a Cauchy product, is of one length
and knows neither a state nor a reset. Blocks need the powers of the matrix for what they read of the states before
them, and with those their kernel is there already.
"""

import torch

from recurra.ops.dplr import DiagonalPlusLowRank, loop
from recurra.ops.linear_system import LinearSystem, chunk as linear_system_chunk
from recurra.shapes import Float, Inexact, Tensor, widen


def declines(record: DiagonalPlusLowRank, state: Tensor) -> str | None:
    """Steps must be of one length; then as a linear system does."""
    if record.step.ndim > 1:
        return "steps differ in length"
    return linear_system_chunk.refuses(record.x, record.valid)


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
    wide = DiagonalPlusLowRank(record.x, *(widen(x, torch.float64) for x in record[1:6]))
    features, units = record.write.shape
    units_of_each = torch.eye(units, dtype=wide.write.dtype, device=record.x.device)
    basis = torch.cat([units_of_each, 1j * units_of_each])[:, None].expand(-1, features, -1)
    nothing = torch.zeros(features, dtype=torch.float64, device=record.x.device)
    columns = loop.advance(wide, wide.step, basis, nothing)
    write = loop.advance(wide, wide.step, torch.zeros_like(basis[0]), nothing + 1)
    matrix = _real(columns).permute(1, 2, 0)
    read = 2 * _real(wide.read.conj())[:, None]
    return LinearSystem(record.x, matrix, _real(write), read, record.reset, record.valid)
