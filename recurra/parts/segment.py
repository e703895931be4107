"""What memories over segments share: each row's steps in that row's own segments, and a memory handed from one to next.

Rows of a batch are at different places of their segments, and a sequence that begins, begins a segment. So time is
arranged as (segment, place) for every row by itself; what a mixer does with a segment never sees a clock. Only the
writing of memories goes segment by segment: once it is known what each segment remembers, all are read at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.ops.attention import attention
from recurra.ops.scan import compiled
from recurra.ops.walk import Walk, Way, native
from recurra.ops.walk.choose import walk
from recurra.ops.walk.loop import choose as choose
from recurra.parts.rotary import count, rotary_turns, rotate
from recurra.shapes import Bool, Float, Int, State, Tensor
from recurra.state import each

AT_ONCE = 64  # segments that are read together, and whose memories are therefore held at the same time

Open = tuple[Float[Tensor, "B R F"], Int[Tensor, " B"]]  # what is kept of the open segment's steps, and how many


class Segments(NamedTuple):
    """Steps in their segments: S of a row, the first of which may have begun before, C places in each, Q new."""

    kept: Float[Tensor, "B S C F"]  # of every step of a segment, old ones too; zeros where none has been yet
    query: Float[Tensor, "B S Q G"]  # of the new steps
    place: Int[Tensor, "P #S Q"]  # in its segment, of every query; P and S are 1 where it is the same in all
    fresh: Bool[Tensor, "B S"] | None  # a sequence begins with this segment
    full: Bool[Tensor, "B S"]  # its last step is here
    order: Int[Tensor, "B T"] | int  # where every step is among the queries; T: they come first, in order
    last: Int[Tensor, " B"]  # the number of each row's last segment

    def some(self, which: slice) -> "Segments":
        """Some of every row's segments. Where steps are among all queries stays."""
        fresh = None if self.fresh is None else self.fresh[:, which]
        kept, query, full = (x[:, which] for x in (self.kept, self.query, self.full))
        place = self.place if self.place.shape[1] == 1 else self.place[:, which]
        return self._replace(kept=kept, query=query, place=place, fresh=fresh, full=full)

    def together(self) -> Iterator["Segments"]:
        """As many of every row's segments as are read together, and again as many, to the last."""
        return (self.some(slice(first, first + AT_ONCE)) for first in range(0, self.full.shape[1], AT_ONCE))

    def in_time(self, y: Float[Tensor, "B S Q D"]) -> Float[Tensor, "B T D"]:
        """What was read for the queries of all segments, in the order of the steps."""
        y = y.flatten(1, 2)
        if isinstance(self.order, int):
            return y if y.shape[1] == self.order else y[:, : self.order]
        return y.gather(1, self.order[..., None].expand(-1, -1, y.shape[-1]))


def check_segment(segment: int) -> int:
    """The number of steps in a segment.

    Raises:
        ValueError: it is less than 1.
    """
    at_least(1, segment=segment)
    return segment


def none_open(room: Float[Tensor, "B R F"]) -> Open:
    """No step of a segment yet, and `room`, zeros, for what is kept of all but its last."""
    return room, torch.zeros(len(room), dtype=torch.long, device=room.device)


def arrange(
    query: Float[Tensor, "B T G"], kept: Float[Tensor, "B T F"], opened: Open, clock: Clock | None
) -> tuple[Segments, Open]:
    """The steps in their segments, and the segment that is open after them.

    Args:
        query: of every new step, what only it needs.
        kept: of every new step, what later steps of its segment need, and the memory when the segment is full.
        opened: the segment that is open before them, whose room is one step less than a segment.
        clock: when steps happen.
    """
    before, past = opened
    size = before.shape[1] + 1
    if clock is None and not bool(past.any()):
        return _in_line(query, kept, size, before.dtype)
    batch, steps = query.shape[:2]
    positions, counted = count(past, steps, clock)
    place = positions % size
    # the first segment is the open one, which may already have steps
    segment = (place == 0).cumsum(1) - (past == 0).long()[:, None]
    live = torch.ones_like(place, dtype=torch.bool) if clock is None or clock.valid is None else clock.valid
    last = segment.masked_fill(~live, 0).amax(1)
    total, most = int(last.max()) + 1, min(steps, size)
    segment = torch.where(live, segment, 0)
    begun = torch.zeros_like(last[:, None]).expand(-1, total).clone()
    begun[:, 0] = past
    index = segment * most + place - begun.gather(1, segment)
    room = before.new_zeros(batch, total * size + 1 - before.shape[1], kept.shape[-1], dtype=kept.dtype)
    grid = _put(torch.cat([before.to(kept.dtype), room], 1), segment * size + place, live, kept)
    asked = _put(query.new_zeros(batch, total * most + 1, query.shape[-1]), index, live, query)
    grid, asked = grid.unflatten(1, (total, size)), asked.unflatten(1, (total, most))
    reset = None if clock is None else clock.reset
    new = begun[..., None] + torch.arange(most, device=place.device)
    segments = Segments(
        grid,
        asked,
        new.clamp(max=size - 1),
        None if reset is None else _any(reset & live, segment, total),
        _any((place == size - 1) & live, segment, total),
        torch.where(live, index, 0),
        last,
    )
    return segments, _open(grid, last, counted % size, before.dtype)


def _in_line(
    query: Float[Tensor, "B T G"], kept: Float[Tensor, "B T F"], size: int, kind: torch.dtype
) -> tuple[Segments, Open]:
    """As `arrange`, where every row begins a segment and no clock says anything: steps are where they belong."""
    batch, steps = query.shape[:2]
    total, most = -(-steps // size), min(steps, size)
    kept, query = (
        F.pad(x, (0, 0, 0, total * each - steps)) if total * each > steps else x
        for x, each in ((kept, size), (query, most))
    )
    grid, asked = kept.unflatten(1, (total, size)), query.unflatten(1, (total, most))
    index = torch.arange(total * most, device=query.device).unflatten(0, (total, most))
    full = (index[:, 0] + size <= steps).expand(batch, -1)
    past = index.new_full((batch,), steps % size)
    room = grid[:, -1, :-1].to(kind)
    # a view would keep all that it is a view of
    room = room.clone() if steps % size else torch.zeros_like(room)
    return Segments(grid, asked, index[None, :1], None, full, steps, torch.full_like(past, total - 1)), (room, past)


def _put(
    room: Float[Tensor, "B L F"], index: Int[Tensor, "B T"], live: Bool[Tensor, "B T"], x: Float[Tensor, "B T F"]
) -> Float[Tensor, "B R F"]:
    """`room`, less its last place, with `x` at `index`. Steps that did not happen go to the last place."""
    index = torch.where(live, index, room.shape[1] - 1)
    return room.scatter(1, index[..., None].expand_as(x), x)[:, :-1]


def _any(said: Bool[Tensor, "B T"], segment: Int[Tensor, "B T"], total: int) -> Bool[Tensor, "B S"]:
    """Whether it is said of any step of each segment."""
    zeros = torch.zeros(len(said), total, dtype=torch.long, device=said.device)
    return zeros.scatter_add(1, segment, said.long()) > 0


def _open(grid: Float[Tensor, "B S C F"], last: Int[Tensor, " B"], past: Int[Tensor, " B"], kind: torch.dtype) -> Open:
    """What is kept of each row's last segment, if that is not full."""
    kept = grid[torch.arange(len(grid), device=grid.device), last][:, :-1]
    return _so_far(kept, past).to(kind), past


def _so_far(kept: Float[Tensor, "B R F"], past: Int[Tensor, " B"]) -> Float[Tensor, "B R F"]:
    """What is kept of steps that have been, zeros for the others."""
    gone = torch.arange(kept.shape[1], device=kept.device) >= past[:, None]
    return kept.masked_fill(gone[..., None], 0)


def through(
    prepare: Callable[[Tensor, Tensor, Tensor], State],
    write: Callable[[State, State], State] | Way,
    read: Callable[[State, Tensor, State, Tensor], Tensor],
    query: Float[Tensor, "B T G"],
    kept: Float[Tensor, "B T F"],
    state: tuple[State, Open],
    start: tuple[State, Open],
    clock: Clock | None,
    shown: Callable[[State], State] = lambda ready: ready,
) -> tuple[Float[Tensor, "B T D"], tuple[State, Open]]:
    """What all steps read, and the state after them: every full segment is written, then all steps read at once.

    Memories of no more than AT_ONCE segments are in use.

    Args:
        prepare: from the query, what is kept and the place (or `(1, Q)`, if it is the same) of segments `(N, ...)`, all
            of theirs that needs no memory, each tensor `(N, ...)`.
        write: from a memory and what is prepared of a full segment, the memory after it; or a `Way`, which may run in
            C, and may make of every segment what its queries read.
        read: from memories, or what the way makes, `(N, ...)`, and the query, what is prepared and the place of as many
            segments, what the queries read.
        query: of every step, what only it needs.
        kept: of every step, what later steps of its segment need, and the memory when the segment is full.
        state: the memory before the first segment, and the open segment.
        start: the state of a sequence that begins.
        clock: when steps happen.
        shown: of what is prepared, what is written.
    """
    memory, opened = state
    size, batch = opened[0].shape[1] + 1, len(query)
    segments, opened = arrange(query, kept, opened, clock)
    way = write if isinstance(write, Way) else Way(lambda memory, ready: (write(memory, ready), ()))
    way = way._replace(key=_known(way, segments, size))
    y = []
    for some in segments.together():
        asked, place = some.query.flatten(0, 1), some.place.flatten(0, 1)
        ready = prepare(asked, some.kept.flatten(0, 1), place)
        written = each(lambda x: x.unflatten(0, (batch, -1)), shown(ready))
        (before, made), memory = walk(Walk(way, written, start[0], some.fresh, some.full), memory)
        found = each(lambda x: x.flatten(0, 1), made if way.makes else before)
        y.append(read(found, asked, ready, place).unflatten(0, (batch, -1)))
    return segments.in_time(torch.cat(y, 1) if len(y) > 1 else y[0]), (memory, opened)


def whole(x: Float[Tensor, "B T D"], opened: Open) -> bool:
    """Whether these steps fill a segment that begins with them, in every row, so that `at_once` may be asked."""
    room, past = opened
    return x.shape[1] > room.shape[1] and not bool(past.any())


def at_once(
    way: Way, x: Float[Tensor, "B T D"], memory: State, room: Float[Tensor, "B R E"], start: State, clock: Clock | None
) -> tuple[Float[Tensor, "B T D"], State, Open] | None:
    """All that a layer makes of segments that begin with these steps, in one walk in C; None where that is not taken.

    Args:
        way: makes y `(R, C, D)` of a memory and of a segment's x `(R, C, D)`.
        x: of every step; `whole` says yes.
        memory: before the first segment.
        room: as of the open segment, for R steps.
        start: the memory of a sequence that begins.
        clock: when steps happen.

    Returns:
        The output, the memory, and x of the steps of the segment that is open after them.
    """
    segments, opened = arrange(x[..., :0], x, none_open(x.new_zeros(*room.shape[:2], x.shape[-1])), clock)
    y = []
    for some in segments.together():
        record = Walk(way, (some.kept,), start, some.fresh, some.full)
        if not compiled(native, record, memory):
            return None
        (_, (found,)), memory = native.scan(record, memory)
        y.append(found)
    return segments.in_time(torch.cat(y, 1) if len(y) > 1 else y[0]), memory, opened


def _known(way: Way, segments: Segments, size: int) -> tuple | None:
    """The way's key, but not if it makes something of pieces shorter than a segment.

    They are of many lengths, of which each would be compiled by itself.
    """
    return way.key if not way.makes or segments.query.shape[2] == size else None


def within(
    read: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Float[Tensor, "B T G"],
    kept: Float[Tensor, "B T F"],
    opened: Open,
    clock: Clock | None,
) -> tuple[Float[Tensor, "B T D"], Open]:
    """What all steps read of their own segment, from the query, what is kept and the place; no memory is handed on."""
    segments, opened = arrange(query, kept, opened, clock)
    y = [
        read(*(x.flatten(0, 1) for x in (some.query, some.kept, some.place))).unflatten(0, (len(query), -1))
        for some in segments.together()
    ]
    return segments.in_time(torch.cat(y, 1)), opened


def as_kept(query: Tensor, kept: Tensor, place: Tensor) -> Tensor:
    """Nothing can be prepared."""
    return kept


def in_turn(
    prepare: Callable[[Tensor, Tensor, Tensor], State],
    meet: Way,
    write: Callable[[State, Tensor], State],
    read: Callable[[State, Tensor, Tensor], Tensor],
    query: Float[Tensor, "B T G"],
    kept: Float[Tensor, "B T F"],
    state: tuple[State, tuple[Float[Tensor, "B R E"], Int[Tensor, " B"]]],
    start: tuple[State, tuple[Float[Tensor, "B R E"], Int[Tensor, " B"]]],
    clock: Clock | None,
) -> tuple[Float[Tensor, "B T D"], tuple[State, tuple[Float[Tensor, "B R E"], Int[Tensor, " B"]]]]:
    """As `through`, where what is written of a step is what it makes of the memory, which is made once: when it comes.

    Args:
        prepare: from the query, what is kept and the place of segments `(N, ...)`, all of their new steps' that needs
            no memory, each tensor `(N, ...)`.
        meet: from a memory and what is prepared of a segment, what its new steps make of it: for their own output, each
            tensor `(B, Q, ...)`, and for later steps and the memory, `(B, Q, M)`. Its weights are those of `write` too.
        write: from a memory and what all steps of a full segment made for it, `(B, C, M)`, the memory after it.
        read: from what steps made for their own output and what all of their segments made `(N, C, M)`, and the place,
            the output.
        query: of every step, what only it needs.
        kept: of every step, what later steps of its segment need and that needs no memory.
        state: the memory before the first segment, and the open segment, of whose steps `kept` and then `(M)` is kept.
        start: the state of a sequence that begins.
        clock: when steps happen.
    """
    memory, (room, past) = state
    open_kept, made = room.tensor_split([kept.shape[-1]], -1)
    segments, (open_kept, counted) = arrange(query, kept, (open_kept, past), clock)
    batch, y, number = len(query), [], 0

    def whole(memory: State, ready: State) -> tuple[State, tuple[State, Tensor]]:
        mine, new = meet.function(memory, ready)
        grid = _filled(new, room.shape[1] + 1)
        return write(memory, grid), (mine, grid)

    way = Way(whole, meet.weights, meet.key, meet.parts, makes=True)
    way = way._replace(key=_known(way, segments, room.shape[1] + 1))
    for some in segments.together():
        ready = prepare(*(x.flatten(0, 1) for x in (some.query, some.kept, some.place)))
        ready = each(lambda x: x.unflatten(0, (batch, -1)), ready)
        own, grids = [], []
        count = some.full.shape[1]
        # what is by itself is written only if it is full, which it mostly is not
        alone = int(not number and (count == 1 or bool(past.any())))
        if alone:
            if some.fresh is not None:
                memory = choose(some.fresh[:, 0], start[0], memory)
            mine, new = meet.function(memory, each(lambda x: x[:, 0], ready))
            grids.append(_among(made, new, past)[:, None])
            memory = _written(write, memory, grids[0][:, 0], some.full[:, 0])
            own.append(each(lambda x: x[:, None], mine))
        if count > alone:
            fresh = None if some.fresh is None else some.fresh[:, alone:]
            ready = each(lambda x, first=alone: x[:, first:], ready)
            (_, (mine, grid)), memory = walk(Walk(way, ready, start[0], fresh, some.full[:, alone:]), memory)
            own.append(mine)
            grids.append(grid)
        own, grid = each(lambda *x: _end_to_end(x).flatten(0, 1), *own), _end_to_end(grids)
        here = (segments.last >= number) & (segments.last < number + count)
        place = (segments.last - number).clamp(0, count - 1)
        made = choose(here, grid[torch.arange(batch, device=place.device), place][:, :-1], made)
        y.append(read(own, grid.flatten(0, 1), some.place.flatten(0, 1)).unflatten(0, (batch, -1)))
        number += count
    room = torch.cat([open_kept, _so_far(made, counted)], -1)
    return segments.in_time(torch.cat(y, 1) if len(y) > 1 else y[0]), (memory, (room, counted))


def _end_to_end(parts: Sequence[Tensor]) -> Tensor:
    """Along segments."""
    return torch.cat([*parts], 1) if len(parts) > 1 else parts[0]


def _among(old: Float[Tensor, "B R M"], new: Float[Tensor, "B Q M"], past: Int[Tensor, " B"]) -> Float[Tensor, "B C M"]:
    """What all steps of a segment made: the `past` first of the old, then the new."""
    size = old.shape[1] + 1
    if not bool(past.any()):
        return _filled(new, size)
    # what is beyond the segment goes to a place of its own
    index = (past[:, None] + torch.arange(new.shape[1], device=new.device)).clamp(max=size)
    return F.pad(old.to(new.dtype), (0, 0, 0, 2)).scatter(1, index[..., None].expand_as(new), new)[:, :-1]


def _filled(new: Float[Tensor, "B Q M"], size: int) -> Float[Tensor, "B C M"]:
    """What all steps of a segment made that began with these."""
    return F.pad(new, (0, 0, 0, size - new.shape[1])) if new.shape[1] < size else new


def _written(write: Callable[[State, Tensor], State], memory: State, grid: Tensor, full: Bool[Tensor, " B"]) -> State:
    """The memory after a segment, in the rows where it is full."""
    if bool(full.all()):
        return write(memory, grid)
    return choose(full, write(memory, grid), memory) if bool(full.any()) else memory


def turned(x: Float[Tensor, "B T H K"], positions: Int[Tensor, "N T"], base: float) -> Float[Tensor, "B T H K"]:
    r"""`x` turned by position :math:`\times\; \text{base}^{-2i/K}`, Su et al. 2021, https://arxiv.org/abs/2104.09864."""
    return rotate(x, *rotary_turns(positions, x.shape[-1], base)).to(x.dtype)


def attend_open(
    query: Float[Tensor, "N Q H K"],
    key: Float[Tensor, "N C H K"],
    value: Float[Tensor, "N C H V"],
    place: Int[Tensor, "P Q"],
    base: float,
) -> Float[Tensor, "N Q H V"]:
    """Softmax attention of every query to the steps of its segment up to its own, turned by their places."""
    places = torch.arange(key.shape[1], device=key.device)[None]
    query, key = turned(query, place, base), turned(key, places, base)
    return attention(query, key, value, torch.zeros_like(place), place)
