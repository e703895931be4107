"""Rotary positions. The position is state: whole numbers, and angles in float64, so that step 10,000,000 is exact.

In float32 the angle at position 1,000,000 is wrong by hundredths of a radian.
"""

import torch

from recurra.clock import Clock
from recurra.shapes import Float, Int, Tensor, wide


def count(start: Int[Tensor, " B"], steps: int, clock: Clock | None) -> tuple[Int[Tensor, "B T"], Int[Tensor, " B"]]:
    """The position of every step, and of the step after the last one that happened.

    Args:
        start: the position of the first step, unless a sequence begins there.
        steps: how many steps (T).
        clock: a reset is position zero; steps that did not happen are at each row's end, and are not counted.
    """
    index = torch.arange(steps + 1, device=start.device)
    positions = start[:, None] + index
    if clock is not None and clock.reset is not None:
        begun = torch.where(clock.reset, index[:-1], -1).cummax(1).values
        begun = torch.cat([begun, begun[:, -1:]], 1)
        positions = torch.where(begun < 0, positions, index - begun)
    if clock is None or clock.valid is None:
        return positions[:, :-1], positions[:, -1]
    return positions[:, :-1], positions.gather(1, clock.counts[:, None])[:, 0]


def turns(
    positions: Int[Tensor, "B T"], size: int, base: float = 10000.0
) -> tuple[Float[Tensor, "B T 1 P"], Float[Tensor, "B T 1 P"]]:
    r"""Cosine and sine, in float64, of position :math:`\times\; \text{base}^{-i/(P-1)}` for P = size / 2 angles.

    Args:
        positions: of each step.
        size: features of what will be rotated (K); even.
        base: the slowest angle turns this many times slower than the fastest.
    """
    angles = base ** -torch.linspace(0, 1, size // 2, dtype=torch.float64, device=positions.device)
    angles = positions[..., None, None] * angles
    return angles.cos(), angles.sin()


def rotary_turns(
    positions: Int[Tensor, "B T"], size: int, base: float
) -> tuple[Float[Tensor, "B T 1 P"], Float[Tensor, "B T 1 P"]]:
    r"""As `turns`, of position :math:`\times\; \text{base}^{-2i/K}`: Su et al. 2021, https://arxiv.org/abs/2104.09864.

    Its slowest angle is one short of the base, that of `turns` the base itself.
    """
    return turns(positions, size, base ** (1 - 2 / size))


def rotate(
    x: Float[Tensor, "... K"], cosine: Float[Tensor, "... P"], sine: Float[Tensor, "... P"]
) -> Float[Tensor, "... K"]:
    """`x` with each pair of neighbours (2i, 2i+1) turned by its angle, in the wide type.

    As a product of complex numbers: one pass over `x`, where the four real products and their sums take seven.
    """
    if torch.compiler.is_compiling():
        return rotate_by_parts(x, cosine, sine)
    real = wide(x)
    turn = torch.complex(cosine.to(real), sine.to(real))
    pairs = torch.view_as_complex(x.to(real).unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


def rotate_by_parts(
    x: Float[Tensor, "... K"], cosine: Float[Tensor, "... P"], sine: Float[Tensor, "... P"]
) -> Float[Tensor, "... K"]:
    """As `rotate`, by real products: what makes one pass of them by itself has no complex ones."""
    real = wide(x)
    cosine, sine = cosine.to(real), sine.to(real)
    even, odd = x.to(real).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1).flatten(-2)
