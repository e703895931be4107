"""Linear maps that are not called but read: several as one product, one folded into another, one handed to a kernel.

A map that is read is silent: a hook on it would never run, pruning by hooks would do nothing, and what stands in its
place, a low-rank adapter or a quantised layer, would be passed over. So nobody here reads a map that somebody has
altered: it is called, or, where that is impossible, refused. A parametrisation is no alteration: what is read is what
it makes.
"""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules import module as hooks

from recurra.ops.hooked import hooked
from recurra.shapes import Float, Tensor


def plain(*modules: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether calling these does what their `kind` says and nobody hears of it: they may be read in place of called."""
    return not hooks._has_any_global_hook() and not any(_altered(module, kind) for module in modules)


def readable(owner: nn.Module, *names: str, kind: type[nn.Module] = nn.Linear) -> tuple[Any, ...]:
    """Parts of `owner` that it can only read.

    Raises:
        RuntimeError: somebody listens to one, or has put another in its place.
    """
    parts = tuple(owner._modules[name] for name in names)
    for name, part in zip(names, parts, strict=True):
        if part is None or _altered(part, kind):
            raise RuntimeError(
                f"{type(owner).__name__} reads the weights of its `{name}`, past hooks (pruning is one) and past a "
                f"layer in its place: hook {type(owner).__name__} itself, or change weights by "
                "torch.nn.utils.parametrize"
            )
    return parts


def linear(x: Float[Tensor, "*B D"], *maps: nn.Linear) -> Float[Tensor, "*B F"]:
    """What several maps without biases make of `x`, side by side, by one product if all are plain."""
    return Joined(*maps)(x)


class Joined:
    """Several linear maps without biases, side by side: of plain ones the weights are put together once, for all calls.

    `weights` are those, if all are plain; else `called` are the maps.
    """

    def __init__(self, *maps: nn.Linear) -> None:
        self.called = () if plain(*maps) else maps
        self.weights = () if self.called else (torch.cat([one.weight for one in maps]),)

    def __call__(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        if self.called:
            return torch.cat([one(x) for one in self.called], -1)
        return F.linear(x, *self.weights)


def halves(x: Float[Tensor, "*B D"], entering: nn.Linear) -> tuple[Float[Tensor, "*B F"], Float[Tensor, "*B F"]]:
    """The two halves of what a map without a bias makes."""
    if not plain(entering):
        one, two = entering(x).chunk(2, -1)
        return one, two
    # two products where one would do: going back their gradients need not be copied together
    one, two = entering.weight.chunk(2)
    return F.linear(x, one), F.linear(x, two)


def handed(
    x: Float[Tensor, "B T D"], entering: nn.Linear
) -> tuple[Float[Tensor, "B T _"], Float[Tensor, "N D"] | None, Float[Tensor, " N"] | None]:
    """What enters a cell, the weights and the bias that it multiplies by: none if `entering` had to be called."""
    return (x, entering.weight, entering.bias) if plain(entering) else (entering(x), None, None)


def within(real: torch.dtype, entering: nn.Module, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
    """The map called with its weights in a wider type."""
    weights = dict(entering.named_parameters())
    if all(weight.dtype is real for weight in weights.values()):
        return entering(x)
    return functional_call(entering, {name: weight.to(real) for name, weight in weights.items()}, x)


def _altered(module: nn.Module, kind: type[nn.Module]) -> bool:
    return type(module).forward is not kind.forward or hooked(module)
