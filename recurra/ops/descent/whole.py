"""A chunk all of whose steps are there, from its start to its end, as plain torch: a part of what segments do.

What a segment is to a larger memory is traced, with its gradient, and becomes C as a whole (`ops.walk`). So there is
nothing here but products and maps: sums over some of the steps are products with tables of zeros and ones, and what is
dear of a map is in it once.
"""

import math
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops.once import once_differentiable
from recurra.shapes import Float, Tensor

Layers = tuple[Float[Tensor, "B H _ _"], ...]


class Tables(NamedTuple):
    """What is the same for all chunks of C steps."""

    sums: Float[Tensor, "C S"]  # ones for the steps from j + 1 to i, at (i, j); then for those up to i; S = C C + C
    later: Float[Tensor, "C C"]  # -inf where j comes after i, else zero


def tables(chunk: int, like: Tensor) -> Tables:
    """Those for chunks of this length, in the type of `like`."""
    step = torch.arange(chunk, device=like.device)
    until = step[:, None] <= step
    between = until[:, :, None] & (step[:, None, None] > step)
    later = torch.zeros(chunk, chunk, device=like.device).masked_fill(step[:, None] < step, -torch.inf)
    return Tables(torch.cat([between.flatten(1), until], 1).to(like), later.to(like))


class Taught(NamedTuple):
    """What a whole chunk is taught and asked, with logarithms of what is kept of weights and of momentum."""

    query: Float[Tensor, "B H C K"]
    key: Float[Tensor, "B H C K"]
    value: Float[Tensor, "B H C V"]
    rate: Float[Tensor, "B H C"]
    log_decay: Float[Tensor, "B H C"]
    log_momentum: Float[Tensor, "B H C"]


def whole(given: Taught, start: Layers, momentum: Layers, known: Tables) -> tuple[Tensor, Layers, Layers]:
    """What the chunk reads, and weights and momentum after it.

    `Descent` with the identity for a mirror, half the squared error, no norm and no biases, whose chunk begins here.
    """
    kept, left = _left(given.log_decay, known)
    lasting, turned = _left(given.log_momentum, known)
    turned = turned * given.rate[..., None, :]
    pairs, carried = left @ turned, (left * lasting[..., None, :]).sum(-1)
    entering, backs = _gradients(start, given.key, given.value)
    first, through, still = (z[..., -1:, None] for z in (kept, carried, lasting))
    x, after, turning = given.query, [], []
    for enters, back, old, moved in zip(entering, backs, start, momentum, strict=True):
        if after:
            x, _ = bent(x)
        x = kept[..., None] * (x @ old) + carried[..., None] * (x @ moved) - ((x @ enters.mT) * pairs) @ back
        after.append(first * old + through * moved - (enters * pairs[..., -1, :, None]).mT @ back)
        turning.append(still * moved - (enters * turned[..., -1, :, None]).mT @ back)
    return x, tuple(after), tuple(turning)


def answers(weights: Layers, x: Float[Tensor, "B H C K"]) -> Float[Tensor, "B H C V"]:
    """What weights answer to every x."""
    x = x @ weights[0]
    for weight in weights[1:]:
        x = bent(x)[0] @ weight
    return x


def _gradients(
    weights: Layers, key: Float[Tensor, "B H C K"], value: Float[Tensor, "B H C V"]
) -> tuple[list[Tensor], list[Tensor]]:
    """For every key and layer the two vectors whose product is the gradient: what enters, what comes back."""
    entering, slopes, z = [key], [], key @ weights[0]
    for weight in weights[1:]:
        x, slope = bent(z)
        z = x @ weight
        entering.append(x)
        slopes.append(slope)
    backs = [z - value]
    for weight, slope in zip(weights[:0:-1], slopes[::-1], strict=True):
        backs.insert(0, (backs[0] @ weight.mT) * slope)
    return entering, backs


def _left(log: Float[Tensor, "B H C"], known: Tables) -> tuple[Float[Tensor, "B H C"], Float[Tensor, "B H C C"]]:
    """What a decay leaves of the chunk's start at every step, and of every step's own at every later one."""
    steps = log.shape[-1]
    pairs, start = (log.flatten(0, 1) @ known.sums).split([steps * steps, steps], -1)
    pairs = pairs.view(*log.shape, steps) + known.later
    return start.view(log.shape).exp(), pairs.exp()


class _Bent(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Any:
        share = 0.5 + 0.5 * torch.erf(z * 0.5**0.5)
        density = torch.exp(-0.5 * z * z) * (2 * math.pi) ** -0.5
        slope = share + z * density
        ctx.save_for_backward(z, slope, density)
        return z * share, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, slope, density = ctx.saved_tensors
        value, turn = grads
        return value * slope + turn * (density * (2 - z * z))


def bent(z: Float[Tensor, "*B M"]) -> tuple[Float[Tensor, "*B M"], Float[Tensor, "*B M"]]:
    """GELU and its derivative."""
    return _Bent.apply(z)  # pyright: ignore[reportReturnType]
