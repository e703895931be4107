"""Gates and scales that many layers have beside their scan, each a map of one pass."""

from torch.nn import functional as F

from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    return x * scale


def _skipping(read: Tensor, x: Tensor, gate: Tensor, skip: Tensor) -> Tensor:
    return (read + skip * x) * F.silu(gate)


def _gated(x: Tensor, gate: Tensor) -> Tensor:
    return x * F.silu(gate)


def _bent(read: Tensor, x: Tensor, skip: Tensor) -> Tensor:
    return F.gelu(read + skip * x)


def _opened(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate.sigmoid()


def _geglu(x: Tensor, gate: Tensor) -> Tensor:
    return x * F.gelu(gate)


SCALED, SKIPPING, GATED = Map("scaled", _scaled), Map("skipping", _skipping), Map("gated", _gated)
BENT, OPENED, GEGLU = Map("bent", _bent), Map("opened", _opened), Map("geglu", _geglu)


def scaled(x: Float[Tensor, "B T *F"], scale: Float[Tensor, "..."]) -> Float[Tensor, "B T *F"]:
    """`x * scale`, of a scale for each vector of the last axis: `(B, T, ..., 1)`."""
    return pointwise(SCALED, x, scale)


def gated(x: Float[Tensor, "B T *F"], gate: Float[Tensor, "B T *F"]) -> Float[Tensor, "B T *F"]:
    r"""`x * silu(gate)`."""
    return pointwise(GATED, x, gate)


def skipping(
    read: Float[Tensor, "B T *F"], x: Float[Tensor, "B T *F"], gate: Float[Tensor, "B T *F"], skip: Float[Tensor, "..."]
) -> Float[Tensor, "B T *F"]:
    r"""What was read and a share of what went in, :math:`(o + d \odot x) \odot \operatorname{silu}(z)`."""
    return pointwise(SKIPPING, read, x, gate, skip)


def bent(
    read: Float[Tensor, "B T *F"], x: Float[Tensor, "B T *F"], skip: Float[Tensor, "..."]
) -> Float[Tensor, "B T *F"]:
    r"""What was read and a share of what went in, bent, :math:`\operatorname{gelu}(o + d \odot x)`."""
    return pointwise(BENT, read, x, skip)


def opened(x: Float[Tensor, "B T *F"], gate: Float[Tensor, "B T *F"]) -> Float[Tensor, "B T *F"]:
    r"""`x * sigmoid(gate)`."""
    return pointwise(OPENED, x, gate)


def geglu(x: Float[Tensor, "B T *F"], gate: Float[Tensor, "B T *F"]) -> Float[Tensor, "B T *F"]:
    r"""`x * gelu(gate)`, of the normal distribution itself."""
    return pointwise(GEGLU, x, gate)
