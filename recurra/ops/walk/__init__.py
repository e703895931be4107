"""A memory that goes from segment to segment by a function which torch runs in dozens of small calls.

What a segment is to the memory is each architecture's own: attention, feed-forward nets, gates. The function is written
once, as torch is written, over some rows of the batch; `loop` calls it for every segment, `native` makes one C function
of it and one of its gradient, and walks all segments in one call, rows of the batch given to threads.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from recurra.shapes import Bool, State, Tensor


class Way(NamedTuple):
    """From a memory and what is ready of a segment, each `(R, ...)` for any R, the memory after it, and what it made.

    A row's results come of that row alone.
    """

    function: Callable[[State, State], tuple[State, State]]
    weights: tuple[Tensor, ...] = ()  # all tensors that the function knows by itself, none made of another
    key: tuple | None = None  # the same where the same is computed of tensors of the same shapes; None: not said
    parts: tuple[nn.Module, ...] = ()  # that it calls; what their calls do is read once, so none may be altered
    makes: bool = False  # something of every segment, and not only a memory of full ones


class Walk(NamedTuple):
    r"""Segments of every row of the batch, and what they do to its memory.

    .. math::
        M'_s = \begin{cases} M_0 & \text{a sequence begins with } s \\ M_{s-1} \end{cases} \qquad
        (N_s, o_s) = f(M'_s, r_s) \qquad
        M_s = \begin{cases} N_s & s \text{ is full} \\ M'_s \end{cases}

    What is read of it is :math:`M'` and o. State: M, as many tensors `(B, ...)` as f takes.
    """

    way: Way
    ready: State  # r, each (B, S, ...)
    start: State  # M_0, each (B, ...)
    fresh: Bool[Tensor, "B S"] | None
    full: Bool[Tensor, "B S"]
