"""When steps happen. One type says it all, so that padding, packing and irregular time are never three options."""

from __future__ import annotations

import dataclasses

import torch

from recurra.shapes import Bool, Float, Int, Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """Which steps begin a sequence, which did not happen, and how much time passed.

    Args:
        reset: `(B, T)` bool. True: a new sequence begins at this step; everything before it is forgotten.
        valid: `(B, T)` bool. False: this step did not happen; the state is unchanged, the output is zero. A step
            that did not happen cannot begin a sequence either: `reset` is ignored where `valid` is False.
        dt: `(B, T)` float > 0 where steps happened, the time since the step before. Architectures without a notion of
            time refuse it.
    """

    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None
    dt: Float[Tensor, "B T"] | None = None

    def __post_init__(self) -> None:
        shapes = {}
        for name in ("reset", "valid", "dt"):
            part = getattr(self, name)
            if part is None:
                continue
            if part.ndim != 2:
                raise ValueError(f"Clock.{name} has shape {tuple(part.shape)}: it must be (batch, time)")
            if name == "dt":
                if not part.is_floating_point():
                    raise ValueError(f"Clock.dt has type {part.dtype}: it must be a float type")
                happened = part if self.valid is None or self.valid.shape != part.shape else part[self.valid]
                if not bool((happened > 0).all()):
                    raise ValueError("Clock.dt must be greater than 0 at every step that happened: a step takes time")
            elif part.dtype != torch.bool:
                raise ValueError(f"Clock.{name} has type {part.dtype}: it must be bool")
            shapes[name] = tuple(part.shape)
        if len(set(shapes.values())) > 1:
            raise ValueError(f"the parts of a Clock must have one shape, not {shapes}")

    @classmethod
    def lengths(cls, lengths: Int[Tensor, " B"] | list[int], steps: int | None = None) -> Clock:
        """Rows padded on the right: row b has `lengths[b]` steps of `steps` (default: the longest)."""
        lengths = torch.as_tensor(lengths)
        steps = int(lengths.max()) if steps is None else steps
        if int(lengths.min()) < 0 or int(lengths.max()) > steps:
            raise ValueError(f"lengths must lie between 0 and {steps}, not {lengths.tolist()}")
        return cls(valid=torch.arange(steps, device=lengths.device) < lengths[:, None])

    @classmethod
    def packed(cls, cu_seqlens: Int[Tensor, " S"] | list[int]) -> Clock:
        """One row that holds sequences end to end; `cu_seqlens` begins with 0 and ends with the row's length."""
        ends = torch.as_tensor(cu_seqlens)
        if ends.ndim != 1 or len(ends) < 1 or int(ends[0]) != 0 or bool((ends.diff() < 0).any()):
            raise ValueError("cu_seqlens must begin with 0 and never fall")
        reset = torch.zeros(1, int(ends[-1]), dtype=torch.bool, device=ends.device)
        reset[0, ends[:-1][ends.diff() > 0]] = True
        return cls(reset=reset)

    def __bool__(self) -> bool:
        """False where nothing was said: the plain clock, which costs nothing."""
        return any(part is not None for part in (self.reset, self.valid, self.dt))

    def cut(self, start: int, stop: int | None = None) -> Clock:
        """The clock of steps `start` to `stop`."""
        parts = (self.reset, self.valid, self.dt)
        return Clock(*(None if part is None else part[:, start:stop] for part in parts))

    def rows(self, index: Tensor | slice | list[int]) -> Clock:
        """The clock of some rows."""
        parts = (self.reset, self.valid, self.dt)
        return Clock(*(None if part is None else part[index] for part in parts))

    def aligned(self) -> tuple[Clock, Int[Tensor, "B T"]]:
        """The same steps with those that did not happen moved to each row's end, and the order that does it.

        `x.gather(1, order)` moves a tensor alike; `scatter` with the same order moves it back.
        """
        valid = self.valid
        assert valid is not None
        order = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)
        reset = None if self.reset is None else (self.reset & valid).gather(1, order)
        moved = valid.gather(1, order)
        # a step that did not happen may have any dt; one is harmless in every formula
        dt = None if self.dt is None else self.dt.gather(1, order).masked_fill(~moved, 1)
        return Clock(reset, moved, dt), order

    @property
    def counts(self) -> Int[Tensor, " B"]:
        """How many steps of each row happened."""
        assert self.valid is not None
        return self.valid.sum(1)
