"""What a layer remembers of how its parameters have moved its state: the one thing in which online rules differ."""

import abc

import torch

from recurra.shapes import Float, State, Tensor
from recurra.train.errors import RunError
from recurra.train.rules.layer import Layer, Step
from recurra.train.rules.structure import buckets, colours, reached, wiring

MOST = 2**24  # numbers of an influence, a row


class Influence(abc.ABC):
    r"""An approximation of :math:`J_t = \partial s_t / \partial \theta`, through a layer's own past and nothing else.

    .. math::  J_t = D_t J_{t-1} + I_t \qquad D_t = \frac{\partial s_t}{\partial s_{t-1}}
        \qquad I_t = \left.\frac{\partial s_t}{\partial \theta}\right|_{s_{t-1}}

    The common language is that of Marschall, Cho & Savin 2020, https://arxiv.org/abs/1907.02649.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @abc.abstractmethod
    def start(self, rows: int) -> State:
        """Nothing remembered: zeros, batch first."""

    @abc.abstractmethod
    def advance(self, memory: State, at: Step) -> State:
        """What is remembered after a step."""

    @abc.abstractmethod
    def credit(self, memory: State, error: Float[Tensor, "B S"]) -> Float[Tensor, "B P"]:
        """The gradient that an error in the state means for the parameters: `error` times the influence, row by row."""


class Exact(Influence):
    r"""The influence itself, where a parameter can have reached within some steps.

    The wiring decides what is kept: for N units that do not see each other one number a parameter, for N dense units N
    a parameter. With `steps` entries further than that are dropped as they arise.

    Args:
        layer: whose.
        steps: how far; None: as far as it goes, which drops nothing.

    Raises:
        RunError: it is too large.
    """

    def __init__(self, layer: Layer, steps: int | None = None) -> None:
        super().__init__(layer)
        wires = wiring(layer)
        self.buckets = buckets(wires, reached(wires, layer.units, steps))
        self.numbers = sum(b.rows.numel() * b.columns.shape[1] for b in self.buckets)
        if self.numbers > MOST:
            raise RunError(
                f"the influence of {layer.count:,} parameters of {type(layer.mixer).__name__} on {layer.size:,} "
                f"numbers of state is {self.numbers:,} numbers a row, more than {MOST:,}: make it smaller, or take "
                "a rule that keeps less (snap, uoro, eprop)"
            )
        self.colours = colours(wires)
        self.cotangents = torch.nn.functional.one_hot(self.colours).T

    def start(self, rows: int) -> tuple[Tensor, ...]:
        return tuple(self.layer.zeros(rows, *b.rows.shape, b.columns.shape[1]) for b in self.buckets)

    def advance(self, memory: tuple[Tensor, ...], at: Step) -> tuple[Tensor, ...]:
        if not memory:
            return ()
        by_parameter, by_state = self.layer.pull(self.cotangents.to(at.vector), at)
        after = []
        for (rows, columns, inside, entering), influence in zip(self.buckets, memory, strict=True):
            colour = self.colours[rows][:, :, None]
            # rows of one colour are told apart by where they are wired to
            step = by_state[:, colour, rows[:, None]] * inside
            direct = by_parameter[:, colour, columns[:, None]] * entering
            after.append(step @ influence + direct)
        return tuple(after)

    def credit(self, memory: tuple[Tensor, ...], error: Float[Tensor, "B S"]) -> Float[Tensor, "B P"]:
        gradient = error.new_zeros(len(error), self.layer.count)
        for (rows, columns, *_), influence in zip(self.buckets, memory, strict=True):
            gradient[:, columns] = (error[:, rows, None] * influence).sum(2)
        return gradient
