"""What nonlinear oscillators share, beside time, which is in `elapsed`."""

import torch

from recurra.shapes import Float, Tensor, wide


def constants(like: Tensor, units: int, *values: float) -> Float[Tensor, "P N"]:
    """Numbers that are the same for all units, as parameters of a rule, in the wide type of `like`."""
    return torch.tensor(values, dtype=wide(like), device=like.device)[:, None].expand(-1, units)


def twice(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two vectors of N end to end, and in the other order.

    A recurrent operator reads one vector. Where a rule needs products with two it runs on 2N units, those of the first
    and those of the second, and each is told what its other half is.
    """
    return torch.cat([first, second], -1), torch.cat([second, first], -1)
