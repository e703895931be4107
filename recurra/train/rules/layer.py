"""A layer's step as a pure function of numbers: what every way to carry credit forwards differentiates.

The step that runs is the mixer's own, one row at a time under torch's function transforms, so that whatever can be
mixed can be learned online, and no cell is written twice.
"""

from typing import Any, NamedTuple

import torch

from recurra.clock import Clock
from recurra.mixers import Mixer
from recurra.shapes import Bool, Float, State, Tensor
from recurra.state import each, leaves

Whole = tuple[Tensor, ...]  # the part of a state that has no slope: counters, keys


class Step(NamedTuple):
    """Where a step was taken from, and what it read."""

    vector: Float[Tensor, "B S"]
    whole: Whole
    x: Float[Tensor, "B D"]
    begins: Bool[Tensor, " B"] | None  # where a sequence begins


class Layer:
    """One mixer, its state's numbers laid side by side, and its parameters' too.

    Args:
        mixer: whose step it is.

    `units` `(S,)` says which numbers belong to one unit: the two of a complex number, and those that stand at the same
    place in tensors of the same shape, as an LSTM's h and c.
    """

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer
        self.template = mixer.initial_state(1)
        self.units = _units(self.template)
        self.parameters = {name: p for name, p in mixer.named_parameters() if p.requires_grad}
        self.size, self.count = len(self.units), sum(p.numel() for p in self.parameters.values())

    def vector(self, state: State) -> Float[Tensor, "B S"]:
        """The numbers of a state that have slopes, row by row; complex ones as pairs."""
        return torch.cat([_real(x).reshape(len(x), -1) for x in leaves(state) if _slopes(x)], 1)

    def whole(self, state: State) -> Whole:
        """The numbers that have none."""
        return tuple(x for x in leaves(state) if not _slopes(x))

    def state(self, vector: Float[Tensor, "B S"], whole: Whole) -> State:
        """The state of such numbers."""
        rest, place = iter(whole), 0

        def take(like: Tensor) -> Tensor:
            nonlocal place
            if not _slopes(like):
                return next(rest)
            shape = _real(like).shape[1:]
            part = vector[:, place : place + shape.numel()].reshape(-1, *shape).to(like.real.dtype)
            place += shape.numel()
            return torch.view_as_complex(part.contiguous()) if like.is_complex() else part

        return each(take, self.template)

    def zeros(self, *shape: int) -> Float[Tensor, "..."]:
        """Zeros of the type and on the device of the state's numbers."""
        return self.vector(self.template).new_zeros(shape)

    def first(self) -> Step:
        """A first step that reads zeros."""
        p = next(self.mixer.parameters())
        x = p.new_zeros(1, self.mixer.config["width"])
        return Step(self.vector(self.template), self.whole(self.template), x, None)

    def weights(self) -> dict[str, Tensor]:
        """The parameters as they are now, without history."""
        return {name: p.detach() for name, p in self.parameters.items()}

    def flat(self, gradients: dict[str, Tensor], axes: int) -> Float[Tensor, "*B P"]:
        """Gradients with `axes` axes before those of their parameter, side by side."""
        return torch.cat([gradients[name].flatten(axes) for name in self.parameters], -1)

    def add(self, gradient: Float[Tensor, " P"]) -> None:
        """Add to the parameters' gradients."""
        sizes = [p.numel() for p in self.parameters.values()]
        for p, part in zip(self.parameters.values(), gradient.split(sizes), strict=True):
            part = part.view_as(p).to(p.dtype)
            p.grad = part.clone() if p.grad is None else p.grad + part

    def _after(
        self,
        weights: dict[str, Tensor],
        vector: Float[Tensor, " S"],
        whole: Whole,
        x: Float[Tensor, " D"],
        begins: Bool[Tensor, ""] | None,
    ) -> Float[Tensor, " S"]:
        """One row's numbers after a step."""
        state = self.state(vector[None], tuple(part[None] for part in whole))
        clock = None if begins is None else Clock(begins[None, None])
        _, after = torch.func.functional_call(self.mixer, weights, (x[None, None], state, clock))
        return self.vector(after)[0]

    @torch.no_grad()
    def pull(
        self, cotangents: Float[Tensor, "*B C S"], at: Step
    ) -> tuple[Float[Tensor, "B C P"], Float[Tensor, "B C S"]]:
        """Slopes of sums of the numbers after a step, in the parameters and in the numbers before it.

        `cotangents`: the weights of the sums, `(C, S)` the same for all rows, or `(B, C, S)`.
        """

        def row(vector: Tensor, whole: Whole, x: Tensor, begins: Tensor | None, some: Tensor) -> tuple[Tensor, Tensor]:
            pulled = torch.func.vjp(lambda w, v: self._after(w, v, whole, x, begins), self.weights(), vector)
            weights, before = torch.vmap(pulled[1])(some)
            return self.flat(weights, 1), before

        return torch.vmap(row, (0, 0, 0, 0 if at.begins is not None else None, 0 if cotangents.ndim == 3 else None))(
            *at, cotangents
        )

    @torch.no_grad()
    def push(self, tangent: Float[Tensor, "B S"], at: Step) -> Float[Tensor, "B S"]:
        """How the numbers after a step move when those before it move along `tangent`."""
        weights = self.weights()

        def row(vector: Tensor, whole: Whole, x: Tensor, begins: Tensor | None, along: Tensor) -> Tensor:
            back = torch.func.vjp(lambda v: self._after(weights, v, whole, x, begins), vector)[1]
            # the slope of a pull in what is pulled: every kernel has the one, few have a push
            return torch.func.vjp(lambda u: back(u)[0], torch.zeros_like(vector))[1](along)[0]

        return torch.vmap(row, (0, 0, 0, 0 if at.begins is not None else None, 0))(*at, tangent)


def _slopes(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj().resolve_neg()) if x.is_complex() else x


def _units(state: State) -> Tensor:
    """A whole number for each of a state's numbers: which unit it belongs to."""
    starts: dict[Any, int] = {}
    units, free = [], 0
    for x in leaves(state):
        if not _slopes(x):
            continue
        shape = x.shape[1:]
        if shape not in starts:
            starts[shape] = free
            free += shape.numel()
        own = starts[shape] + torch.arange(shape.numel())
        units.append(own.repeat_interleave(2) if x.is_complex() else own)
    return torch.cat(units) if units else torch.zeros(0, dtype=torch.int64)
