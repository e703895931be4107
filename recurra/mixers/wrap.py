"""Compositions of mixers. They are no rows of MIXERS: what they promise is not what a mixer promises."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from recurra.checks import at_least, greater_than, one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.mixers.looped import Looped as Looped
from recurra.ops.steps import restart
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
        one_of(MERGES, merge=merge)
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


class StateRegularised(nn.Module):
    r"""A cell held to mixtures of a few learned states, so that what it learned can be read as an automaton.

    .. math::
        u_t = \operatorname{cell}(x_t, h_{t-1}) \qquad \alpha_t = \operatorname{softmax}(S u_t / \tau) \qquad
        y_t = h_t = S^\top \alpha_t

    The rows of S are the states; the lower :math:`\tau`, the nearer h is to one of them. Only what the cell puts out is
    held to them: an LSTM's cell goes on as memory. Wang & Niepert 2019, https://arxiv.org/abs/1901.08817. Steps run one
    by one. State: the cell's.

    Args:
        cell: a mixer whose output is the first of its states, as that of "elman", "gru" and "lstm" is.
        states: how many (rows of S).
        temperature: :math:`\tau`.

    Raises:
        ValueError: the mixer's output is not the first of its states, `states` is less than 2, or `temperature` is not
            greater than 0.
    """

    def __init__(self, cell: Mixer, *, states: int = 10, temperature: float = 1.0) -> None:
        super().__init__()
        at_least(2, states=states)
        greater_than(0, temperature=temperature)
        units = _units(cell)
        self.cell: Any = cell
        self.temperature = temperature
        self.states = nn.Parameter(torch.empty(states, units).uniform_(-0.5, 0.5))

    def initial_state(self, batch: int) -> State:
        """The cell's."""
        return self.cell.initial_state(batch)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T N"], State]:
        """Run over x from `state`, as a mixer does."""
        state = self.initial_state(len(x)) if state is None else state
        outputs = [x.new_zeros(len(x), 0, self.states.shape[1])]
        for now, tick in _ticks(x, clock):
            _, (hidden, *rest) = self.cell(now, state, tick)
            share = torch.softmax(hidden @ self.states.to(hidden).T / self.temperature, -1)
            mixed = share @ self.states.to(hidden)
            read = mixed.to(x.dtype)
            if tick is not None and tick.valid is not None:
                mixed, read = torch.where(tick.valid, mixed, hidden), read * tick.valid
            state = (mixed, *rest)
            outputs.append(read[:, None])
        return torch.cat(outputs, 1), state


class TopDown(nn.Module):
    r"""A stack of mixers in which every layer also hears what the layer above it said one step earlier.

    .. math::
        y^l_t = \operatorname{mix}^l\bigl(y^{l-1}_t + F^l y^{l+1}_{t-1}\bigr) \qquad y^0_t = x_t

    Feedback from higher to lower areas: Felleman & Van Essen 1991, https://doi.org/10.1093/cercor/1.1.1; between layers
    of recurrent networks, ungated here: Chung et al. 2015, https://arxiv.org/abs/1502.02367. F starts at zero, a plain
    stack. Steps run one by one, as a layer waits for the one above. State: the mixers' states, and the last output of
    every layer but the first, `(B, D)` each.

    Args:
        mixers: lowest first, of one width (D).

    Raises:
        ValueError: there are fewer than two mixers, or their widths differ.
    """

    def __init__(self, *mixers: Mixer) -> None:
        super().__init__()
        widths = [mixer.config["width"] for mixer in mixers]
        if len(mixers) < 2 or len(set(widths)) > 1:
            raise ValueError(f"the widths are {widths}: there must be at least two mixers, of one width")
        self.mixers: Any = nn.ModuleList(mixers)
        self.feedback = nn.Parameter(torch.zeros(len(mixers) - 1, widths[0], widths[0]))

    def initial_state(self, batch: int) -> State:
        """The mixers' own, and silence from above."""
        above = tuple(mixer.zeros(batch, self.feedback.shape[1]) for mixer in self.mixers[1:])
        return tuple(mixer.initial_state(batch) for mixer in self.mixers), above

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Run over x from `state`, as a mixer does."""
        states, above = self.initial_state(len(x)) if state is None else state
        outputs = [x[:, :0]]
        for now, tick in _ticks(x, clock):
            heard = above
            if tick is not None and tick.reset is not None:
                begins = tick.reset if tick.valid is None else tick.reset & tick.valid
                heard = tuple(restart(begins[:, 0], part) for part in above)
            after, said = [], []
            for layer, mixer in enumerate(self.mixers):
                if layer < len(heard):
                    now = now + (heard[layer].to(now) @ self.feedback[layer].to(now).T)[:, None]
                now, own = mixer(now, states[layer], tick)
                after.append(own)
                said.append(now[:, 0])
            states, above = tuple(after), tuple(_held(y, y0, tick) for y, y0 in zip(said[1:], above, strict=True))
            outputs.append(now)
        return torch.cat(outputs, 1), (states, above)


class Residual(nn.Module):
    r"""Layers that each add to what they read, so that a deep stack begins near the identity and gradients pass by.

    .. math::  x^{(l)}_t = x^{(l-1)}_t + y^{(l)}_t \qquad y^{(l)} = \operatorname{mix}_l(x^{(l-1)})

    Wu et al. 2016, https://arxiv.org/abs/1609.08144, for LSTMs. A step that did not happen puts out zero, as in any
    mixer. State: a tuple of the layers' states.

    Args:
        layers: mixers of one width, the lowest first.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, *layers: Mixer) -> None:
        super().__init__()
        if not layers:
            raise ValueError("there are no layers: give at least one mixer")
        self.layers: Any = nn.ModuleList(layers)

    def initial_state(self, batch: int) -> State:
        """The layers'."""
        return tuple(layer.initial_state(batch) for layer in self.layers)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Run over x from `state`, as a mixer does."""
        states: State = self.initial_state(len(x)) if state is None else state
        if clock is not None and clock.valid is not None:
            x = x.masked_fill(~clock.valid[..., None], 0)
        after = []
        for layer, before in zip(self.layers, states, strict=True):
            y, now = layer(x, before, clock)
            x = x + y
            after.append(now)
        return x, tuple(after)


WRAPPERS = {
    "bidirectional": Bidirectional,
    "residual": Residual,
    "state_regularised": StateRegularised,
    "top_down": TopDown,
    "looped": Looped,
}


def _ticks(x: Float[Tensor, "B T D"], clock: Clock | None) -> Iterator[tuple[Tensor, Clock | None]]:
    """Every step by itself."""
    for t, now in enumerate(x.unbind(1)):
        yield now[:, None], None if clock is None else clock.cut(t, t + 1)


def _held(new: Float[Tensor, "B D"], old: Float[Tensor, "B D"], tick: Clock | None) -> Float[Tensor, "B D"]:
    """The new where the step happened."""
    new = new.to(old)
    return new if tick is None or tick.valid is None else torch.where(tick.valid, new, old)


@torch.no_grad()
def _units(cell: Mixer) -> int:
    """Of a cell whose output is the first of its states.

    Raises:
        ValueError: it is not.
    """
    like = next(cell.parameters())
    # two steps: after one, a velocity is where it has led
    y, state = cell(torch.ones(1, 2, cell.config["width"], dtype=like.dtype, device=like.device))
    first = state[0] if isinstance(state, tuple) and state else None
    if not isinstance(first, Tensor) or first.shape != y[:, 1].shape or not torch.equal(first.to(y), y[:, 1]):
        name = type(cell).__name__
        raise ValueError(f"the output of {name} is not the first of its states: there is no h to regularise")
    return first.shape[1]


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
