"""The token shift: the step before, as an input of the present one. What the last step was is state."""

import torch

from recurra.clock import Clock
from recurra.ops.steps import restart
from recurra.shapes import Float, Tensor


def shift(
    x: Float[Tensor, "B T D"], past: Float[Tensor, "B D"], clock: Clock | None = None
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
    """The input of the step before each step, zero where a sequence begins, and the last input that happened.

    Steps that did not happen are at each row's end, as `Mixer` puts them.
    """
    previous = torch.cat([past.to(x.dtype)[:, None], x[:, :-1]], 1)
    if clock is None:
        return previous, x[:, -1].to(past.dtype)
    if clock.reset is not None:
        previous = restart(clock.reset.flatten(), previous.flatten(0, 1)).view_as(x)
    if clock.valid is None:
        return previous, x[:, -1].to(past.dtype)
    last = x[torch.arange(len(x), device=x.device), (clock.counts - 1).clamp(min=0)].to(past.dtype)
    return previous, torch.where((clock.counts > 0)[:, None], last, past)
