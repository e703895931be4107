"""What every architecture promises, and the one place where a clock is put in order before an architecture sees it."""

import abc
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.compiler import is_compiling

from recurra.clock import Clock
from recurra.ops.native import transformed
from recurra.ops.scan import asked, unseen
from recurra.parts.cell import part
from recurra.shapes import Float, State, Tensor, state_zeros
from recurra.state import each, rows

# numbers of x that are mixed at once where only numbers are wanted: eight times as many in float32 fill 32 MiB, and
# what is larger malloc maps anew each time
PIECE = 1 << 20
LEAST = 1024  # steps of a piece, however wide: some architectures make tables once a call
# one of which is in whatever torch says of its transforms: what it says of a wrong shape is shown as it is
TRANSFORMS = ("functorch", "torch.func", "vmap", "forward AD", "forward mode", "not differentiable", "data pointer")


class Mixer(nn.Module, abc.ABC):
    """Mix a sequence over time, causally, with a state.

    The one law: a cut changes nothing. `y, state = mixer(x, state, clock)` on the whole sequence, on any pieces
    with the state handed across, or one step at a time, gives the same outputs, final state and gradients.
    Prefill, streaming and single steps are all this one call.

    A subclass is final. Its keyword-only constructor is its configuration, kept in `config`. It writes two
    methods: `initial_state` and `mix`.
    """

    grows: ClassVar[bool] = False  # the state grows with the sequence: no constant memory
    timed: ClassVar[bool] = False  # has a notion of time: honours `Clock.dt`
    shares: ClassVar[bool] = False  # later layers of its kind read what its `share` gives, as `first`
    undecayed: ClassVar[tuple[str, ...]] = ()  # matrices that weight decay must leave alone; vectors always are
    config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Mixer":
        self = super().__new__(cls)
        if args or kwargs:  # copying makes an empty one
            bound = inspect.signature(cls).bind(*args, **kwargs)
            bound.apply_defaults()
            object.__setattr__(self, "config", dict(bound.arguments))
        return self

    @abc.abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state before the first step: nested tuples of tensors, batch first."""

    @abc.abstractmethod
    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        """The architecture itself. T >= 1, and steps that did not happen are at each row's end."""

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: State | None = None,
        clock: Clock | None = None,
        first: Float[Tensor, "B T D"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Run over x from `state` (None: the start). Returns the outputs and the state after the last step.

        `first` is what `share` of the first layer of its kind in a stack gave; only for architectures that `shares`.

        Raises:
            ValueError: the clock has another shape than x, or a `dt` that this architecture has no use for, or it has
                no use for `first`.
            RuntimeError: torch.func cannot see into it.
        """
        looked_through = not is_compiling() and transformed()
        if first is None and clock is None and state is not None and 0 < x.numel() <= PIECE and not looked_through:
            return self.mix(x, state, None)
        if first is not None and not self.shares:
            raise ValueError(f"{type(self).__name__} reads nothing of another layer: it cannot use `first`")
        run = self._looked_through if looked_through else self._pieces
        return self.in_order(run, x, state, clock, *(() if first is None else (first,)))

    def in_order(
        self,
        run: Callable[..., tuple[Tensor, State]],
        x: Tensor,
        state: State | None,
        clock: Clock | None,
        *more: Tensor,
    ) -> tuple[Tensor, State]:
        """`run(x, state, clock, *more)` as `mix` is: a state, T >= 1, steps that did not happen at each row's end."""
        state = self.initial_state(len(x)) if state is None else state
        clock = clock or None
        if clock is not None:
            self._check(x, clock)
        if x.shape[1] == 0:
            return x, state
        if len(x) == 0:
            return self._nobody(run, x, state, *more)
        valid = None if clock is None else clock.valid
        if clock is None or valid is None:
            return run(x, state, clock, *more)
        clock, order = clock.aligned()
        index = order[..., None].expand_as(x)
        y, state = run(x.gather(1, index), state, clock, *(part.gather(1, index) for part in more))
        happened = valid.gather(1, order)[..., None]
        return torch.empty_like(y).scatter(1, index, y.masked_fill(~happened, 0)), state

    def _nobody(
        self, run: Callable[..., tuple[Tensor, State]], x: Tensor, state: State, *more: Tensor
    ) -> tuple[Tensor, State]:
        """A batch of no rows: one of zeros is run, and none of it kept, so that shapes, types and graph are a batch's.

        The clock is not asked: nobody's steps are numbered.
        """
        y, state = run(_one_more(x), each(_one_more, state), None, *map(_one_more, more))
        return y[:0], rows(state, slice(0))

    def zeros(self, *shape: int) -> Float[Tensor, "..."]:
        """Zeros for a state: on the parameters' device, in float32 or, if they are, float64."""
        return state_zeros(next(self.parameters()), *shape)

    def _looked_through(self, *given: Any) -> tuple[Tensor, State]:
        """`mix` of tensors that stand for many, or carry derivatives.

        Raises:
            RuntimeError: it is made of what torch cannot see into.
        """
        try:
            return self.mix(*given)
        except RuntimeError as error:
            if not any(word in str(error) for word in TRANSFORMS):
                raise
            advice = "call it on plain tensors" if asked() == "loop" else 'try it inside `with recurra.use("loop")`'
            raise RuntimeError(
                f"{type(self).__name__} cannot run under torch.vmap, torch.func or forward-mode derivatives: {advice}"
            ) from error

    def _pieces(self, x: Tensor, state: State, clock: Clock | None, *more: Tensor) -> tuple[Tensor, State]:
        """`mix`, where only numbers are wanted a long sequence piece by piece, so that what is made stays small.

        Hooks within see whole sequences. On a CPU, that is: a GPU keeps the memory that it has had, and wants much to
        do at once.
        """
        steps = max(LEAST, PIECE * x.shape[1] // max(1, x.numel()))
        if x.shape[1] <= steps or not x.is_cpu or not unseen(*self.modules()):
            return self.mix(x, state, clock, *more)
        reads = []
        for start in range(0, x.shape[1], steps):
            now, *parts = (part[:, start : start + steps] for part in (x, *more))
            read, state = self.mix(now, state, None if clock is None else clock.cut(start, start + steps), *parts)
            reads.append(read)
        return torch.cat(reads, 1), state

    def _check(self, x: Tensor, clock: Clock) -> None:
        for told in (clock.reset, clock.valid, clock.dt):
            if told is not None and told.shape != x.shape[:2]:
                raise ValueError(f"the clock is {tuple(told.shape)}, x is {tuple(x.shape[:2])}: they must agree")
        if clock.dt is not None and not self.timed:
            raise ValueError(f"{type(self).__name__} has no notion of time: it cannot honour Clock.dt")


def _one_more(x: Tensor) -> Tensor:
    """`x` and a row of zeros."""
    return torch.cat([x, x.new_zeros(1, *x.shape[1:])])


class OnePart(Mixer):
    """A mixer that is one part with nothing around it: a subclass makes the part, and names it if it is no `cell`."""

    part: ClassVar[str] = "cell"

    def initial_state(self, batch: int) -> State:
        return getattr(self, self.part).initial_state(batch)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        return part(self, self.part)(x, state, clock)


class OneCell(OnePart):
    """A mixer that is one dense cell: what the cell has planned is done without a call between."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if len(arguments) == 2 and not keywords:
            done = part(self, "cell").planned(*arguments, self)
            if done is not None:
                return done
        return super().__call__(*arguments, **keywords)
