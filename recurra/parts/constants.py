"""What is chosen and not trained, as a rule can see it: it has no arguments but tensors."""

import torch

from recurra.shapes import Float, Tensor, wide


def constants(like: Tensor, units: int, *values: float) -> Float[Tensor, "P N"]:
    """Numbers that are the same for all units, as parameters of a rule, in the wide type of `like`."""
    return torch.tensor(values, dtype=wide(like), device=like.device)[:, None].repeat(1, units)
