"""Compositions of mixers. They are no rows of MIXERS: what they promise is not what a mixer promises."""

from typing import Any

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.shapes import Float, Int, State, Tensor

MERGES = ("concat", "sum")


class Bidirectional(nn.Module):
    r"""Two mixers over whole sequences, one from each end, so that every step knows its past and its future.

    .. math::
        y_t = [\overrightarrow{y}_t, \overleftarrow{y}_t] \quad\text{or}\quad
        \overrightarrow{y}_t + \overleftarrow{y}_t \qquad
        \overleftarrow{y} = \operatorname{reverse}(\operatorname{mix}(\operatorname{reverse}(x)))

    Schuster & Paliwal 1997, https://doi.org/10.1109/78.650093; Graves & Schmidhuber 2005,
    https://doi.org/10.1016/j.neunet.2005.06.042. What is reversed is each sequence by itself: within each row's steps
    that happened, and between its resets. So padding, packing and gaps change nothing. Backwards, the time since the
    step before is the time to the step after.

    It has no state and cannot stream: the last step's future is not known before the sequence ends. A call is whole
    sequences. State: (), which no call takes back.

    Args:
        forwards: reads from the beginning.
        backwards: reads from the end.
        merge: "concat", twice the features, or "sum".

    Raises:
        ValueError: `merge` is another, or the mixers are one and the same.
    """

    def __init__(self, forwards: Mixer, backwards: Mixer, *, merge: str = "concat") -> None:
        super().__init__()
        if merge not in MERGES:
            raise ValueError(f"merge is {merge!r}: it must be one of {', '.join(MERGES)}")
        if forwards is backwards:
            raise ValueError("both directions are one mixer: give two, each with its own weights")
        self.forwards: Any = forwards
        self.backwards: Any = backwards
        self.merge = merge

    def initial_state(self, batch: int) -> State:
        """Raises: there is no state to start from.

        Raises:
            ValueError: always.
        """
        raise ValueError(_refusal("has no state"))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T E"], State]:
        """Run over whole sequences. `state` is there to be refused.

        Raises:
            ValueError: a state is given, or the clock is one that the mixers refuse.
        """
        if state is not None:
            raise ValueError(_refusal("cannot go on from a state"))
        ahead, _ = self.forwards(x, None, clock)
        if x.shape[1] == 0:
            back = self.backwards(x)[0]
        else:
            order, turned = reverse(clock, x)
            back, _ = self.backwards(x.gather(1, _wide(order, x)), None, turned)
            index = _wide(order, back)
            back = torch.empty_like(back).scatter(1, index, back)
        return ahead + back if self.merge == "sum" else torch.cat([ahead, back], -1), ()


WRAPPERS = {"bidirectional": Bidirectional}


def reverse(clock: Clock | None, x: Float[Tensor, "B T D"]) -> tuple[Int[Tensor, "B T"], Clock | None]:
    """The order that reverses each sequence of each row, its gaps moved to the row's end, and the clock of that order.

    `gather` with the order reverses; `scatter` with it puts back.
    """
    clock = clock or None
    index = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    if clock is None:
        return index.flip(1), None
    place, steps = index, x.shape[1]
    if clock.valid is not None:
        clock, place = clock.aligned()
    happened = None if clock.valid is None else clock.counts[:, None]
    last = steps if happened is None else happened
    begins = index == 0 if clock.reset is None else clock.reset | (index == 0)
    first = torch.where(begins, index, 0).cummax(1).values
    # each step's end is the step before the next beginning, or before the row's first gap
    after = torch.where(begins, index, steps).roll(-1, 1)
    after[:, -1] = steps
    end = torch.minimum(after.flip(1).cummin(1).values.flip(1), torch.as_tensor(last, device=x.device)) - 1
    turned = torch.where(index < last, first + end - index, index)
    # a sequence's first step has a time too; backwards it is the last step's, which is read first
    dt = None if clock.dt is None else clock.dt.gather(1, torch.where(begins | (index >= last), index, turned + 1))
    return place.gather(1, turned), Clock(clock.reset, clock.valid, dt)


def _wide(index: Int[Tensor, "B T"], like: Float[Tensor, "B T D"]) -> Int[Tensor, "B T D"]:
    return index[..., None].expand_as(like)


def _refusal(what: str) -> str:
    return (
        f"Bidirectional {what}: its backward mixer reads from the end, which a stream does not have yet. "
        "Give it whole sequences, or use one direction"
    )
