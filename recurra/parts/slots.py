"""Attention over slots: a key and a value memory of M rows that fade row by row, and a softmax between them.

Gated slot attention and attention with bounded memory differ only in how fast a slot fades.
"""

import torch
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.ops import Outer, Scan, Selective
from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor

SlotState = tuple[Float[Tensor, "B H M K"], Float[Tensor, "B H M V"]]

# beyond these a slot keeps all, or nothing, of what it holds; between them no quotient is 0 / 0
SLOWEST, FASTEST = 1e-30, 80.0


def _fade(rate: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A rate within bounds, what a slot takes in at it, that over the rate, and the logarithm of what it holds."""
    rate = rate.clamp(SLOWEST, FASTEST)
    write = -torch.expm1(-rate)
    return rate, write, write / rate, -rate


FADE = Map("slots_fade", _fade, 4)


def attend_slots(
    address: Scan,
    content: Scan,
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    rate: Float[Tensor, "B T H M"],
    state: SlotState,
    clock: Clock | None,
) -> tuple[Float[Tensor, "B T H V"], SlotState]:
    r"""What a softmax over slots reads.

    .. math::
        \tilde K_t = \operatorname{diag}(e^{-r_t})\, \tilde K_{t-1} + (1 - e^{-r_t})\, k_t^\top \qquad
        \tilde V_t = \operatorname{diag}(e^{-r_t})\, \tilde V_{t-1} + (1 - e^{-r_t})\, v_t^\top \qquad
        o_t = \tilde V_t^\top \operatorname{softmax}(\tilde K_t q_t)

    The first memory fades along the axis that is read out, which `Outer` does not do, and `Selective`, with a row of
    the batch for every head, does.

    Args:
        address: runs the memory of keys.
        content: runs the memory of values.
        query: what is looked for.
        key: what is written to every slot's key.
        value: what is written to every slot's value.
        rate: r >= 0, in the wide type.
        state: the slots' keys and values.
        clock: when steps happen.
    """
    batch, _, heads, slots = rate.shape
    keys, values = state
    rate, write, share, log_decay = pointwise(FADE, rate)

    def rows(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1)

    each = None
    if clock is not None:
        parts = (clock.reset, clock.valid)
        each = Clock(*(None if part is None else part.repeat_interleave(heads, 0) for part in parts))
    constant = rate.new_full((slots, keys.shape[-1]), -1.0)
    record = Selective(rows(share), rows(rate), constant, rows(key), rows(query))
    score, keys = address(record, keys.flatten(0, 1), each)
    found = F.softmax(score.unflatten(0, (batch, heads)).transpose(1, 2), -1)
    read, values = content(Outer(found, write, value, log_decay), values, clock)
    return read, (keys.unflatten(0, (batch, heads)), values)
