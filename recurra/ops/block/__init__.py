"""Linear recurrences of small dense blocks: P numbers that mix with each other and with nothing else."""

from typing import NamedTuple

import torch

from recurra.ops.steps import blank
from recurra.shapes import Bool, Float, Tensor


class Block(NamedTuple):
    r"""A recurrence of every block of P numbers by itself, read at every step.

    .. math::  h_t = A_t h_{t-1} + b_t  \qquad  o_t = h_t

    State: h, `(B, *F, P)`.
    """

    matrix: Float[Tensor, "..."]  # A: (B, T, *F, P, P), or (*F, P, P) where it is the same at every step
    drive: Float[Tensor, "B T *F P"]  # b
    reset: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.drive

    @property
    def varies(self) -> bool:
        """Whether every step has a matrix of its own."""
        return self.matrix.ndim > self.drive.ndim

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Block":
        """The same record with steps that change nothing where `valid` is False."""
        identity = torch.eye(self.drive.shape[-1], dtype=self.matrix.dtype, device=self.matrix.device)
        matrix = self.matrix.expand(*self.drive.shape, -1)
        happened = valid.reshape(*valid.shape, *(1,) * (matrix.ndim - 2))
        return self._replace(matrix=torch.where(happened, matrix, identity), drive=blank(valid, self.drive))


def apply(matrix: Float[Tensor, "... P Q"], vector: Float[Tensor, "... Q"]) -> Float[Tensor, "... P"]:
    """Every block's matrix times its vector."""
    return torch.einsum("...ij,...j->...i", matrix, vector)
