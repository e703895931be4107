"""Slots found by what they hold: what every machine with an external memory does first."""

from torch.nn import functional as F

from recurra.shapes import Float, Tensor

# added to squares of lengths, so that an empty slot is like nothing and has a gradient
REST = 1e-6

Memory = tuple[Float[Tensor, "B _"], ...]


def look_up(
    memory: Float[Tensor, "B N W"], key: Float[Tensor, "B H W"], strength: Float[Tensor, "B H 1"]
) -> Float[Tensor, "B H N"]:
    r"""Slots by what they hold, :math:`\operatorname{softmax}_i(\beta \cos(k, M_i))`."""
    # products first: of lengths there is one a slot, of numbers many
    likeness = key @ memory.mT * (strength * _over_length(key)) * _over_length(memory).mT
    return F.softmax(likeness, -1)


def _over_length(x: Float[Tensor, "B N W"]) -> Float[Tensor, "B N 1"]:
    """One over the length of each."""
    return ((x * x).sum(-1, keepdim=True) + REST).rsqrt()
