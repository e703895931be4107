"""Where the chunks of every row lie.

Rows stand at different places of their chunks, and a reset begins a chunk wherever it comes. So steps are laid out
anew: each where its chunk has it, and the slots of a chunk that no step fills (those of an earlier call at its start,
those after its end, or after a reset) are left empty, which changes nothing.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.shapes import Bool, Float, Int, Tensor


class Layout(NamedTuple):
    """N chunks a row. A slot without a step names step B T, one more than there are; a step not taken, slot B N C."""

    step: Int[Tensor, "B N C"]  # in each slot, counted through all rows
    slot: Int[Tensor, "B T"]  # of each step, likewise
    begins: Bool[Tensor, "B N"] | None  # a sequence
    taken: Bool[Tensor, "B N C"]  # whether a slot has a step
    position: Float[Tensor, " B"]  # after the last step

    @property
    def complete(self) -> Bool[Tensor, "B N"]:
        """Whose last slot is filled: the chunk ends there."""
        return self.taken[..., -1]

    def gather(self, x: Float[Tensor, "B T *F"]) -> Float[Tensor, "B N C *F"]:
        """What each slot's step has, zeros where there is none."""
        flat = x.flatten(0, 1)
        flat = torch.cat([flat, torch.zeros_like(flat[:1])])
        return flat.index_select(0, self.step.flatten()).unflatten(0, self.step.shape)

    def scatter(self, x: Float[Tensor, "B N C *F"]) -> Float[Tensor, "B T *F"]:
        """What each step's slot has, zeros where it was not taken."""
        flat = x.flatten(0, 2)
        flat = torch.cat([flat, torch.zeros_like(flat[:1])])
        return flat.index_select(0, self.slot.flatten()).unflatten(0, self.slot.shape)


def layout(
    position: Float[Tensor, " B"],
    steps: int,
    chunk: int,
    reset: Bool[Tensor, "B T"] | None,
    valid: Bool[Tensor, "B T"] | None,
) -> Layout:
    """Chunks of `chunk` slots for every row, the first step of which has `position` steps of its chunk before it."""
    rows, device = len(position), position.device
    if reset is None and valid is None and bool((position == position[0]).all()):
        return _in_line(position, steps, chunk)
    index = torch.arange(steps, device=device).expand(rows, steps)
    before = index if valid is None else valid.cumsum(1) - 1
    place = position.long()[:, None] + before
    if reset is not None:
        begun = torch.where(reset, before, -1).cummax(1).values
        place = torch.where(begun < 0, place, before - begun)
    place = place % chunk
    opens = (place == 0) | (before == 0)
    if valid is not None:
        opens = opens & valid
    number = opens.cumsum(1) - 1
    chunks = max(1, int(number[:, -1].max()) + 1)
    slots = number * chunk + place
    if valid is not None:
        slots = slots.masked_fill(~valid, chunks * chunk)
    step = torch.full((rows, chunks * chunk + 1), rows * steps, device=device)
    row = torch.arange(rows, device=device)[:, None]
    step = step.scatter(1, slots, index + steps * row)[:, :-1].unflatten(1, (chunks, chunk))
    slot = torch.where(slots < chunks * chunk, slots + chunks * chunk * row, rows * chunks * chunk)
    begins = None
    if reset is not None:
        begins = torch.zeros(rows, chunks + 1, dtype=torch.bool, device=device)
        begins = begins.scatter(1, torch.where(reset, number, chunks), True)[:, :-1]
    after = (place + 1) % chunk
    last = index if valid is None else torch.where(valid, index, -1)
    last = last.amax(1, keepdim=True)
    after = torch.where(last < 0, position[:, None], after.gather(1, last.clamp(min=0)).to(position.dtype))
    return Layout(step, slot, begins, step < rows * steps, after[:, 0])


def _in_line(position: Float[Tensor, " B"], steps: int, chunk: int) -> Layout:
    """As `layout`, where all rows stand at the same place and no clock says anything: steps follow each other."""
    rows, before = len(position), int(position[0])
    size = -(-(before + steps) // chunk) * chunk
    number = torch.arange(rows * steps, device=position.device).unflatten(0, (rows, steps))
    step = F.pad(number, (before, size - before - steps), value=rows * steps).unflatten(1, (-1, chunk))
    row = torch.arange(rows, device=position.device)[:, None]
    slot = number + before + (size - steps) * row
    return Layout(step, slot, None, step < rows * steps, torch.full_like(position, (before + steps) % chunk))
