"""The short causal convolution in front of many recurrences. Its past inputs are state like any other."""

from typing import NamedTuple

from recurra.shapes import Bool, Float, Tensor


class ShortConv(NamedTuple):
    r"""A causal convolution of each feature by itself, then SiLU where `silu`.

    .. math::  o_t = \operatorname{silu}\Bigl(\beta + \sum_{j<J} w_j \odot x_{t-J+1+j}\Bigr)

    Inputs before a reset count as zero. State: the last J - 1 inputs, `(B, J-1, D)`, oldest first.
    """

    x: Float[Tensor, "B T D"]
    weight: Float[Tensor, "D J"]
    bias: Float[Tensor, " D"] | None = None
    silu: bool = True
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "ShortConv":
        """The same record, told which steps did not happen: no input leaves the past as it was."""
        return self._replace(valid=valid)
