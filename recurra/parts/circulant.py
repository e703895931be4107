"""Convolutions round a ring as matrices: what the compiled cells run, whose recurrent operators are dense."""

import torch

from recurra.shapes import Float, Tensor


def check_taps(taps: int, size: int) -> None:
    """A kernel of that many taps has a middle, and reaches no place of a ring of that size twice.

    Raises:
        ValueError: `taps` is even, or more than the ring has places.
    """
    if taps % 2 == 0 or not 0 < taps <= size:
        raise ValueError(f"taps is {taps}: it must be odd, and no more than the ring's {size} places")


def circulant(kernel: Float[Tensor, "C E K"], size: int, *, shift: int = 0) -> Float[Tensor, "M N"]:
    """The matrix of a circular convolution, torch's padded `conv1d`, of what is rolled by `shift` places first.

    Args:
        kernel: of every channel out for every channel in; K is odd.
        size: places of the ring (G).
        shift: places that the input moves up the ring.

    Returns:
        `(C * G, E * G)`: channels one after the other, each the whole ring.
    """
    taps, half = kernel.shape[-1], kernel.shape[-1] // 2
    identity = torch.eye(size, dtype=kernel.dtype, device=kernel.device)
    # a place reads the places half a kernel below it to half a kernel above it
    rolled = torch.stack([identity.roll(k - half - shift, 1) for k in range(taps)], -1)
    return torch.einsum("cek,ijk->ciej", kernel, rolled).flatten(2).flatten(0, 1)
