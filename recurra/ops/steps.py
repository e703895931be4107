"""What a clock does to one step, for every engine: begin again, or do nothing."""

from collections.abc import Sequence

from torch.nn import functional as F

from recurra.clock import Clock
from recurra.shapes import Bool, Float, Tensor


def restart(reset: Bool[Tensor, " B"], state: Tensor, start: float = 0.0) -> Tensor:
    """`state` with the rows that begin a sequence at their start; exact even after NaN."""
    return state.masked_fill(reset.reshape(-1, *(1,) * (state.ndim - 1)), start)


def by_step(x: Tensor | None, steps: int) -> Sequence[Tensor | None]:
    """What `x` `(B, T, ...)` is at every step: nothing, where there is none."""
    return [None] * steps if x is None else x.unbind(1)


def product(x: Float[Tensor, "B T *X"], y: Float[Tensor, "B T *Y"]) -> Float[Tensor, "X Y"]:
    """The gradient of a weight that takes `y` to what `x` is the gradient of, at every step of every row."""
    # rows by themselves: half of the rounding of one long sum
    return (x.flatten(2).mT @ y.flatten(2)).sum(0)


def blank(valid: Bool[Tensor, "B T"], x: Tensor, fill: float = 0.0) -> Tensor:
    """`x` `(B, T, ...)` with `fill` where a step did not happen."""
    return x.masked_fill((~valid).reshape(*valid.shape, *(1,) * (x.ndim - 2)), fill)


def gaps(valid: Bool[Tensor, "B T"] | None) -> str | None:
    """Why steps cannot be taken all at once: some that did not happen lie between others, not at their row's end."""
    if valid is not None and bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        return "steps that did not happen lie before steps that did: align them first (Clock.aligned)"
    return None


def finer(clock: Clock | None, ticks: int) -> Clock | None:
    """The clock of a recurrence that runs `ticks` times a step: a sequence begins at a step's first tick."""
    if clock is None or ticks == 1:
        return clock
    reset, valid = clock.reset, clock.valid
    reset = None if reset is None else F.pad(reset[..., None], (0, ticks - 1)).flatten(1)
    return Clock(reset, None if valid is None else valid.repeat_interleave(ticks, 1))
