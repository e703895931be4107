"""torch.nn's recurrent layers, in torch's shapes, over this library's engines: change the import, keep the program.

`LSTM`, `GRU` and `RNN` have torch's signature, parameters and state_dict keys, so checkpoints go both ways. Every
other architecture comes in the same calling shape, `out, state = layer(x, state)`: `Recurrent("mamba2", 32, 64)`, or
by its class's name, `recurra.nn.Mamba2(32, 64)`. All of them take a `clock`, which torch's layers lack, and keep
their state in float32 or wider, whatever type the weights have.
"""

import difflib
import functools
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.mixers import MIXERS
from recurra.ops import Cell, Rule, Scan
from recurra.ops.cell import rules
from recurra.shapes import Float, State, Tensor, wide
from recurra.state import each

Hidden = Tensor | tuple[Tensor, Tensor]


class _Layout(NamedTuple):
    """How a user's input lay in memory."""

    time_first: bool
    batched: bool
    packed: PackedSequence | None

    def leave(self, y: Float[Tensor, "B T D"]) -> Tensor | PackedSequence:
        """An output, laid as the input was."""
        if self.packed is not None:
            _, sizes, order, back = self.packed
            y = y if order is None else y[order]
            happened = torch.arange(len(y)) < sizes[:, None]
            return PackedSequence(y.transpose(0, 1)[happened.to(y.device)], sizes, order, back)
        if not self.batched:
            return y[0]
        return y.transpose(0, 1) if self.time_first else y


def _enter(
    x: Tensor | PackedSequence, size: int, batch_first: bool, clock: Clock | None
) -> tuple[Float[Tensor, "B T D"], Clock | None, _Layout]:
    """A user's input as (B, T, D), its clock, and the way back. Errors are of the types that torch raises."""
    packed = x if isinstance(x, PackedSequence) else None
    if packed is not None:
        if clock is not None:
            raise ValueError("a PackedSequence says itself when steps happen: give it no clock, or pad it and give one")
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        clock = Clock.lengths(lengths.to(x.device))
        batch_first = True
    assert isinstance(x, Tensor)
    if x.ndim not in (2, 3):
        raise ValueError(f"the input has {x.ndim} dimensions: it must have 3, or 2 without a batch")
    if x.shape[-1] != size:
        raise RuntimeError(f"the input has {x.shape[-1]} features: input_size is {size}")
    layout = _Layout(not batch_first, x.ndim == 3, packed)
    if not layout.batched:
        x = x[None]
    elif layout.time_first:
        x = x.transpose(0, 1)
    for part in (clock.reset, clock.valid, clock.dt) if clock is not None else ():
        if part is not None and part.shape != x.shape[:2]:
            raise ValueError(
                f"the clock is {tuple(part.shape)}, x is {tuple(x.shape[:2])} in (batch, time): they must agree"
            )
    return x, clock, layout


def _between(x: Tensor, layer: int, layers: int, dropout: float, training: bool) -> Tensor:
    """Dropout after every layer but the last."""
    return F.dropout(x, dropout, training) if dropout and layer < layers - 1 else x


def _backwards(clock: Clock | None, steps: int) -> Clock | None:
    """The clock of the same sequences read from their ends: one begins where the next step begins another."""
    if clock is None or clock.reset is None:
        return None if clock is None or clock.valid is None else Clock(valid=clock.valid.flip(1))
    reset = clock.reset
    valid = torch.ones_like(reset) if clock.valid is None else clock.valid
    # of each step, the first one after it that happened
    places = torch.arange(steps, device=reset.device).where(valid, steps)
    later = F.pad(places.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=steps)
    return Clock(F.pad(reset, (0, 1)).gather(1, later).flip(1), valid.flip(1))


class _Layers(nn.Module):
    """Layers of one rule in torch's shapes; the classes below only name the rule."""

    def __init__(
        self, rule: Rule, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool,
        dropout: float, bidirectional: bool, proj_size: int, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be at least 1")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(
                f"proj_size is {proj_size}: it must be less than hidden_size, {hidden_size}, or 0 for none"
            )
        _check_dropout(dropout)
        self.rule = rule
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, float(dropout), bidirectional
        self.proj_size = proj_size
        self.scan = Scan()
        rows, read = rule.drive * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            inputs = read * len(self._directions) if layer else input_size
            for direction in self._directions:
                shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, read)}
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
                shapes |= {"weight_hr": (proj_size, hidden_size)} if proj_size else {}
                for name, shape in shapes.items():
                    weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{direction}", weight)
        self.reset_parameters()

    @property
    def _directions(self) -> tuple[str, ...]:
        """What torch's names end in."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def reset_parameters(self) -> None:
        """Start again, as torch does: every number uniform within 1 / sqrt(hidden_size)."""
        bound = self.hidden_size**-0.5
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: for programs that call it. The parameters are used as they lie."""

    def forward(
        self, input: Tensor | PackedSequence, hx: Hidden | None = None, clock: Clock | None = None
    ) -> tuple[Tensor | PackedSequence, Hidden]:
        """Run all layers: `(output, h_n)`, or `(output, (h_n, c_n))` for the LSTM, as torch.

        Args:
            input: `(T, B, D)`, `(B, T, D)` with `batch_first`, `(T, D)` without a batch, or a PackedSequence.
            hx: the state to go on from, `(layers * directions, B, N)` each; None: zeros.
            clock: when steps happen, `(batch, time)` whatever `batch_first` says.

        Raises:
            ValueError: dimensions, types or a clock that do not fit.
            RuntimeError: sizes that do not fit.
        """
        x, clock, layout = _enter(input, self.input_size, self.batch_first, clock)
        if x.dtype != self.weight_ih_l0.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"the input is {x.dtype}, the weights are {self.weight_ih_l0.dtype}: convert one of them")
        if clock is not None and clock.dt is not None:
            raise ValueError(f"{type(self).__name__} has no notion of time: it cannot honour Clock.dt")
        starts, after = iter(self._starts(x, hx, layout.batched)), []
        for layer in range(self.num_layers):
            both = []
            for direction in self._directions:
                y, state = self._run(x, next(starts), clock, f"l{layer}{direction}")
                both.append(y)
                after.append(state)
            x = _between(torch.cat(both, -1), layer, self.num_layers, self.dropout, self.training)
        hidden = tuple(torch.stack(parts) for parts in zip(*after, strict=True))
        hidden = hidden if layout.batched else tuple(part[:, 0] for part in hidden)
        return layout.leave(x), hidden if len(hidden) == 2 else hidden[0]

    def _starts(self, x: Tensor, hx: Hidden | None, batched: bool) -> list[tuple[Tensor, ...]]:
        """The state of every layer and direction, in torch's order."""
        cells = self.num_layers * len(self._directions)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.rule.state]
        if hx is None:
            return [tuple(x.new_zeros(len(x), size, dtype=wide(x)) for size in sizes)] * cells
        given = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        wanted = [(cells, len(x), size) if batched else (cells, size) for size in sizes]
        if [part.shape for part in given] != wanted:
            found = ", ".join(str(tuple(part.shape)) for part in given)
            raise RuntimeError(f"the state is {found}: here it must be {', '.join(map(str, wanted))}")
        given = given if batched else tuple(part[:, None] for part in given)
        return list(zip(*(part.unbind(0) for part in given), strict=True))

    def _run(
        self, x: Tensor, state: tuple[Tensor, ...], clock: Clock | None, name: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer in one direction."""
        if x.shape[1] == 0:
            return x.new_zeros(len(x), 0, state[0].shape[1]), state
        if not name.endswith("_reverse"):
            return self.scan(self._record(x, name), state, clock)
        y, state = self.scan(self._record(x.flip(1), name), state, _backwards(clock, x.shape[1]))
        return y.flip(1), state

    def _record(self, x: Tensor, name: str) -> Cell:
        """torch's parameters of one layer as the engine has them: its two biases are one but in the GRU's candidate."""
        units, gates = self.hidden_size, self.rule.drive
        weight = getattr(self, f"weight_hh_{name}").unflatten(0, (gates, 1, units))
        project = getattr(self, f"weight_hr_{name}") if self.proj_size else None
        bias = params = None
        if self.rule.params:
            params = x.new_zeros(1, units)
        if self.bias:
            bias, inner = getattr(self, f"bias_ih_{name}"), getattr(self, f"bias_hh_{name}")
            if self.rule.params:
                inner, params = F.pad(inner[:-units], (0, units)), inner[None, -units:]
            bias = bias + inner
        return Cell(self.rule, x, weight, params, project, input_weight=getattr(self, f"weight_ih_{name}"), bias=bias)

    def extra_repr(self) -> str:
        """The sizes, and what is not as usual."""
        usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False}
        unusual = {key: getattr(self, key) for key in [*usual, "proj_size"] if getattr(self, key) != usual.get(key, 0)}
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *(f"{k}={v}" for k, v in unusual.items())])


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}: it is a probability, between 0 and 1")


class LSTM(_Layers):
    """`torch.nn.LSTM` with a clock: the equations of `recurra.mixers.cell.lstm.LSTM`, torch's two biases.

    Args:
        input_size: features in.
        hidden_size: cells in a layer.
        num_layers: layers, each reading the one before.
        bias: whether the layers have biases.
        batch_first: input and output are `(B, T, D)` rather than `(T, B, D)`; states never are.
        dropout: probability, after every layer but the last, in training.
        bidirectional: a second pass from each sequence's end; needs the whole sequence, so it cannot stream.
        proj_size: features that each layer's output is projected to; 0: no projection.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: a size or probability that means nothing.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            rules.LSTM, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
        )  # fmt: skip


class GRU(_Layers):
    """`torch.nn.GRU` with a clock: the equations of `recurra.mixers.cell.gru.GRU`, reset after the product.

    Args:
        input_size: features in.
        hidden_size: units in a layer.
        num_layers: layers, each reading the one before.
        bias: whether the layers have biases.
        batch_first: input and output are `(B, T, D)` rather than `(T, B, D)`; states never are.
        dropout: probability, after every layer but the last, in training.
        bidirectional: a second pass from each sequence's end; needs the whole sequence, so it cannot stream.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: a size or probability that means nothing.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            rules.GRU_AFTER, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype,
        )  # fmt: skip


class RNN(_Layers):
    """`torch.nn.RNN` with a clock: the equations of `recurra.mixers.cell.elman.Elman`.

    Args:
        input_size: features in.
        hidden_size: units in a layer.
        num_layers: layers, each reading the one before.
        nonlinearity: "tanh" or "relu".
        bias: whether the layers have biases.
        batch_first: input and output are `(B, T, D)` rather than `(T, B, D)`; states never are.
        dropout: probability, after every layer but the last, in training.
        bidirectional: a second pass from each sequence's end; needs the whole sequence, so it cannot stream.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: a size, a probability or a nonlinearity that means nothing.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        known = {"tanh": rules.ELMAN_TANH, "relu": rules.ELMAN_RELU}
        one_of(known, nonlinearity=nonlinearity)
        super().__init__(
            known[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class Recurrent(nn.Module):
    """Layers of any architecture in the shape of torch.nn's: `out, state = layer(x, state)`.

    Args:
        mixer: a name in `MIXERS`.
        input_size: features in; where they are not `hidden_size`, a linear map comes first.
        hidden_size: features out, and the width of every layer.
        num_layers: layers, each reading the one before.
        batch_first: input and output are `(B, T, D)` rather than `(T, B, D)`.
        dropout: probability, after every layer but the last, in training.
        bidirectional: refused.
        device: where the parameters are kept.
        dtype: their type.
        keywords: the architecture's own.

    Raises:
        ValueError: there is no such mixer (the nearest name is given), or it is asked to run backward too.
        TypeError: a keyword that the architecture does not have.
    """

    def __init__(
        self, mixer: str, input_size: int, hidden_size: int, num_layers: int = 1, *, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None, **keywords: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if mixer not in MIXERS:
            near = difflib.get_close_matches(mixer, MIXERS, 1)
            raise ValueError(f"there is no mixer {mixer!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        if bidirectional:
            raise ValueError(f"{mixer} carries its state forward only: a pass from the end could not be continued")
        for name, size in {"input_size": input_size, "num_layers": num_layers}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be at least 1")
        _check_dropout(dropout)
        self.input_size, self.hidden_size, self.batch_first, self.dropout = (
            input_size,
            hidden_size,
            batch_first,
            dropout,
        )
        self.enter = nn.Identity() if input_size == hidden_size else nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(MIXERS[mixer](hidden_size, **keywords) for _ in range(num_layers))
        self.to(device=device, dtype=dtype)

    def forward(
        self, input: Tensor | PackedSequence, state: State | None = None, clock: Clock | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run all layers from `state` (None: the start).

        Args:
            input: `(T, B, D)`, `(B, T, D)` with `batch_first`, `(T, D)` without a batch, or a PackedSequence.
            state: what an earlier call returned: a tuple with each layer's state, batch first, if there is a batch.
            clock: when steps happen, `(batch, time)` whatever `batch_first` says.
        """
        x, clock, layout = _enter(input, self.input_size, self.batch_first, clock)
        if state is not None and not layout.batched:
            state = each(lambda part: part[None], state)
        starts = [None] * len(self.layers) if state is None else state
        x, after = self.enter(x), []
        for layer, (mixer, start) in enumerate(zip(self.layers, starts, strict=True)):
            x, end = mixer(x, start, clock)
            after.append(end)
            x = _between(x, layer, len(self.layers), self.dropout, self.training)
        state = tuple(after) if layout.batched else each(lambda part: part[0], tuple(after))
        return layout.leave(x), state


def __getattr__(name: str) -> Any:
    """Every other architecture by its class's name: `Mamba2(32, 64)` is `Recurrent("mamba2", 32, 64)`."""
    for mixer, cls in MIXERS.items():
        if cls.__name__ == name:
            return functools.partial(Recurrent, mixer)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
