"""Attention over slots: a key and a value memory of M rows that fade row by row, and a softmax between them.

Gated slot attention and attention with bounded memory differ only in how fast a slot fades.
"""

import torch
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.ops import Address, Outer, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.shapes import Float, Tensor

SlotState = tuple[Float[Tensor, "B H M K"], Float[Tensor, "B H M V"]]

# beyond it a slot keeps nothing of what it holds
FASTEST = 80.0


def _fade(rate: Tensor) -> tuple[Tensor, Tensor]:
    rate = rate.clamp(max=FASTEST)
    return -torch.expm1(-rate), -rate


FADE = Map("slots_fade", _fade, 2)


def fade(rate: Float[Tensor, "B T H M"]) -> tuple[Float[Tensor, "B T H M"], Float[Tensor, "B T H M"]]:
    r"""Of a rate r >= 0, in the wide type: what slots take in, :math:`1 - e^{-r}`, and the log of what they keep."""
    return pointwise(FADE, rate)


def attend_slots(
    address: Scan,
    content: Scan,
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    write: Float[Tensor, "B T H M"],
    log_decay: Float[Tensor, "B T H M"],
    state: SlotState,
    clock: Clock | None,
) -> tuple[Float[Tensor, "B T H V"], SlotState]:
    r"""What a softmax over slots reads.

    .. math::
        \tilde K_t = \operatorname{diag}(e^{g_t})\, \tilde K_{t-1} + w_t k_t^\top \qquad
        \tilde V_t = \operatorname{diag}(e^{g_t})\, \tilde V_{t-1} + w_t v_t^\top \qquad
        o_t = \tilde V_t^\top \operatorname{softmax}(\tilde K_t q_t)

    Args:
        address: runs the memory of keys.
        content: runs the memory of values.
        query: what is looked for.
        key: what is written to every slot's key.
        value: what is written to every slot's value.
        write: w, how much a slot takes in, in the wide type.
        log_decay: g <= 0, the logarithm of how much it keeps, in the wide type.
        state: the slots' keys and values.
        clock: when steps happen.
    """
    keys, values = state
    score, keys = address(Address(query.to(write.dtype), key.to(write.dtype), write, log_decay), keys, clock)
    read, values = content(Outer(F.softmax(score, -1), write, value, log_decay), values, clock)
    return read, (keys, values)
