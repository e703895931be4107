"""Sparse networks that look for their own wiring: now and then the weakest connections go, and others grow elsewhere.

How many there are never changes, nor which go; what a rule says is where they grow. It is asked with the gradients of
a batch in place, those of absent weights too, and moves nothing itself.
"""

import abc
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from recurra.parts.cell import DenseCell
from recurra.parts.masks import Mask, Matrix
from recurra.shapes import Float, Tensor


class Rewiring(abc.ABC):
    """When a mask is rewired, how much, and where connections grow. A subclass writes `scores`.

    Args:
        mask: of the weights that are trained.
        steps: updates that the training will have.
        seed: of what is drawn at random, together with the step: nothing else is remembered.
        every: updates between rewirings.
        fraction: the share of each matrix's connections that is replaced, at the first.
        until: the share of the training after which the wiring rests.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, mask: Mask, steps: int, seed: int, *, every: int = 100, fraction: float = 0.3, until: float = 0.75
    ) -> None:
        if every < 1 or not 0 < fraction < 1 or not 0 < until <= 1:
            raise ValueError(
                f"every is {every}, fraction {fraction} and until {until}: at least 1, in (0, 1), and in (0, 1]"
            )
        self.mask, self.seed = mask, seed
        self.every, self.fraction, self.stop = every, fraction, until * steps

    def due(self, step: int) -> bool:
        """Whether the mask is rewired after update number `step`, from 1."""
        return step % self.every == 0 and step < self.stop

    def share(self, step: int) -> float:
        r"""How much is replaced then: half a cosine, :math:`\frac{f}{2} (1 + \cos(\pi t / t_{stop}))`."""
        return self.fraction / 2 * (1 + math.cos(math.pi * step / self.stop))

    def watching(self) -> contextlib.AbstractContextManager[Any]:
        """What holds while a batch goes through the network, for rules that must see it."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def scores(self, step: int) -> dict[str, Tensor]:
        """For each matrix a tensor of its parameter's shape: connections grow where it is highest."""


class Static(Rewiring):
    """No rewiring: the connections stay as they were drawn."""

    def __init__(self, mask: Mask, steps: int, seed: int) -> None:
        super().__init__(mask, steps, seed)

    def due(self, step: int) -> bool:
        return False

    def scores(self, step: int) -> dict[str, Tensor]:
        return {}


class SET(Rewiring):
    """Sparse evolutionary training: connections grow anywhere, at random.

    Mocanu et al. 2018, https://doi.org/10.1038/s41467-018-04316-3. As there the share that is replaced is always the
    same. Unlike there it is after some updates, not epochs, and the weakest go whatever their sign; there it is so many
    of each sign.
    """

    def share(self, step: int) -> float:
        return self.fraction

    def scores(self, step: int) -> dict[str, Tensor]:
        random = np.random.default_rng([self.seed, step])
        return {
            name: torch.from_numpy(random.random(x.shape)).to(x.device) for name, x in self.mask.connections.items()
        }


class RigL(Rewiring):
    r"""Rigging the lottery: connections grow where the loss has the largest slope, :math:`|\partial L / \partial W|`.

    Evci et al. 2020, https://arxiv.org/abs/1911.11134, with their schedule and its defaults. Unlike there the weights
    are updated also on a batch that is rewired after; the slopes are those of that batch, before the update. Slopes of
    absent weights are made at every step here, and cost what they cost a dense network.
    """

    def scores(self, step: int) -> dict[str, Tensor]:
        found = {}
        for name, (parameter, *_) in self.mask.matrices.items():
            slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            found[name] = slope.detach().abs()
        return found


class Hebbian(Rewiring):
    r"""What fires together wires together: connections grow where the activities of both ends are most correlated.

    .. math::  \left| \operatorname{corr}(a_{pre}, a_{post}) \right|

    over all rows and steps of a batch. Konstantaropoulos et al. 2025, https://arxiv.org/abs/2508.14140. The schedule is
    RigL's. That of the paper itself was not found; the code of its form with spikes
    (https://github.com/APapafragkakis/G2G-Sparse-Spiking-Neural-Net) replaces a tenth every 1000 updates, as long as it
    trains, and grows where the cosine of the activities is largest: their means are not taken off, and its sign counts.
    There the weakest can also go by that cosine, and nothing that the optimiser remembers is set to zero.

    The activity after a linear layer is what it gives, before any squashing; after a dense cell the unit's, for all its
    gates alike; and before a recurrent connection the unit's at the step before. A unit that never changes is
    correlated with none. A linear layer counts steps that did not happen, a cell does not.

    Raises:
        ValueError: a matrix is neither of a linear layer nor of a dense cell that projects nothing: its activities
            cannot be seen.
    """

    def __init__(
        self, mask: Mask, steps: int, seed: int, *, every: int = 100, fraction: float = 0.3, until: float = 0.75
    ) -> None:
        super().__init__(mask, steps, seed, every=every, fraction=fraction, until=until)
        for name, (_, _, owner) in mask.matrices.items():
            if not isinstance(owner, nn.Linear) and not (isinstance(owner, DenseCell) and owner.project is None):
                seen = "linear layers and of dense cells without a projection"
                raise ValueError(f"hebbian sees the activities of {seen}, not of {name}")
        self.seen: dict[str, _Moments] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.seen = {name: _Moments() for name in self.mask.matrices}
        hooks = [
            m.owner.register_forward_hook(_tell(m, self.seen[n])) for n, m in self.mask.matrices.items() if m.owner
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def scores(self, step: int) -> dict[str, Tensor]:
        """As everywhere.

        Raises:
            ValueError: nothing was seen of a matrix: its layer's weight is used without calling the layer.
        """
        if unseen := [name for name in self.mask.matrices if not self.seen[name].count]:
            raise ValueError(
                f"hebbian saw nothing of {', '.join(unseen)}: layers that are not called, of which the weights alone "
                "are used; name others with where, or rewire by set or rigl"
            )
        found = {}
        for name, (parameter, shape, _) in self.mask.matrices.items():
            found[name] = self.seen[name].correlation().abs().expand(shape).reshape(parameter.shape)
        return found


class _Moments:
    """Sums over what was seen, from which correlations come: of many calls as of one."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    @torch.no_grad()
    def add(self, before: Float[Tensor, "*B I"], after: Float[Tensor, "*B O"]) -> None:
        one, two = (x.reshape(-1, x.shape[-1]).double() for x in (before, after))
        new = [one.sum(0), two.sum(0), one.square().sum(0), two.square().sum(0), two.T @ one]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.count else new
        self.count += len(one)

    def correlation(self) -> Float[Tensor, "O I"]:
        one, two, squares, other_squares, products = (x / self.count for x in self.sums)
        spread, other_spread = squares - one.square(), other_squares - two.square()
        scale = torch.outer(other_spread, spread).clamp_min(0).sqrt()
        # a constant's spread is what rounding left of it
        still = (spread <= 1e-12 * squares) | (other_spread <= 1e-12 * other_squares)[:, None]
        return torch.where(still, 0.0, (products - torch.outer(two, one)) / scale.masked_fill(still, 1.0))


def _tell(matrix: Matrix, seen: _Moments) -> Any:
    """A forward hook that adds the activities before and after a matrix."""
    owner = matrix.owner
    if isinstance(owner, nn.Linear):
        return lambda _, given, result: seen.add(given[0], result)
    assert isinstance(owner, DenseCell)

    def of_cell(_: nn.Module, given: Any, result: Any) -> None:
        (x, state, clock), (units, _) = given, result
        before = x
        if matrix.parameter is owner.weight:
            before = torch.cat([state[0][:, None].to(units.dtype), units[:, :-1]], 1)
            if clock is not None and clock.reset is not None:
                before = before.masked_fill(clock.reset[..., None], 0)
        happened = ... if clock is None or clock.valid is None else clock.valid
        seen.add(before[happened], units[happened])

    return of_cell
