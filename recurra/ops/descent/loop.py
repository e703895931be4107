"""The definition of `Descent`: one step at a time. Costs about three passes over the weights a step."""

import torch

from recurra.ops.descent import Descent, DescentState
from recurra.ops.steps import restart
from recurra.shapes import Tensor


def declines(record: Descent, state: DescentState) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Descent, state: DescentState) -> tuple[Tensor, DescentState]:
    state, reads = counted(state), []
    for t in _steps(record):
        before = state if t.reset is None else begin(t.initial, t.reset[:, 0], state)
        read, after = _step(t, before)
        if t.valid is not None:
            happened = t.valid[:, 0]
            after = tuple(keep(happened, new, old) for new, old in zip(after, state, strict=True))
            read = restart(~happened, read)
        state = after
        reads.append(read)
    return torch.stack(reads, 1), state


def counted(state: DescentState) -> DescentState:
    """The state with a whole number of steps so far, even where all is ruined: they are counted, not differentiated."""
    return *state[:3], state[3].detach().nan_to_num().round(), *state[4:]


def begin(initial: Tensor, reset: Tensor, state: DescentState) -> DescentState:
    """The state with the rows that begin a sequence at their start."""
    start, moved, kept, position, *momentum = state
    start = keep(reset, initial.expand_as(start), start)
    return (
        start,
        restart(reset, moved),
        restart(reset, kept, 1.0),
        restart(reset, position),
        *(restart(reset, x) for x in momentum),
    )


def keep(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Some rows of one tensor, the rest of another."""
    return torch.where(rows.reshape(-1, *(1,) * (one.ndim - 1)), one, other)


def _steps(record: Descent) -> list[Descent]:
    """The record of every step, its time an axis of length one."""
    timed = ("query", "key", "value", "rate", "log_decay", "log_momentum", "threshold", "reset", "valid")
    parts = {name: part.split(1, 1) for name in timed if (part := getattr(record, name)) is not None}
    several = zip(*parts.values(), strict=True)
    return [record._replace(**dict(zip(parts, each, strict=True))) for each in several]


def _step(record: Descent, state: DescentState) -> tuple[Tensor, DescentState]:
    start, moved, kept, position, *momentum = state
    net, norm = record.net, record.norm
    weights = record.weights(start)
    threshold = None if record.threshold is None else record.threshold.transpose(1, 2)[..., None]
    key, value = record.key.transpose(1, 2), record.value.transpose(1, 2)
    entering, backs = net.gradients(weights, key, value, norm, record.power, threshold)
    gradient = torch.cat([(x.mT @ back).flatten(-2) for x, back in zip(entering, backs, strict=True)], -1)
    change = -record.rate[:, 0, :, None] * gradient
    if record.log_momentum is not None:
        change = record.log_momentum[:, 0, :, None].exp() * momentum[0] + change
        momentum = [change]
    if record.log_decay is not None:
        decay = record.log_decay[:, 0].exp()
        moved, kept = decay[..., None] * moved, decay * kept
    moved = moved + change
    place = position.long()
    shown = moved if record.scale is None else record.scale[place][:, None, None] * moved
    ends = place == record.chunk - 1
    dual = record.settled(kept[..., None] * start + shown)
    if record.mirror is not None:
        within = zip(weights, net.layers(shown), record.weights(dual), strict=True)
        now = [keep(ends, whole, kept[..., None, None] * w + x) for w, x, whole in within]
    else:
        now = record.weights(dual)
    read = net.forward(now, record.query.transpose(1, 2), norm)[:, :, 0]
    after = keep(ends, dual, start), restart(ends, moved), restart(ends, kept, 1.0), restart(ends, position + 1)
    return read, (*after, *momentum)
