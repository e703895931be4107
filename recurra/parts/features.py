"""Feature maps: what makes a product of a query and a key a similarity."""

from torch.nn import functional as F

from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor

ELU_PLUS_ONE = Map("elu_plus_one", lambda x: F.elu(x) + 1)


def elu_plus_one(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""Positive everywhere: :math:`\phi(x) = \operatorname{elu}(x) + 1`, which is x + 1 above zero and e^x below."""
    return pointwise(ELU_PLUS_ONE, x)
