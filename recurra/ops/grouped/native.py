"""Groups in C, from where they lie to where they belong. Costs reading x and writing y once, and both twice back."""

from collections.abc import Callable, Sequence

import torch

from recurra.ops import native
from recurra.ops.native import direct
from recurra.ops.native.operators import Given, Kernel, run as run_kernel
from recurra.shapes import Float, Tensor

SHORT = 32  # rows that are few
PLANS = 256  # kept at most, of which none holds a tensor
FEW = 1 << 14  # numbers that torch multiplies sooner than a kernel is called
LARGE = 64  # features of a group, from which torch's products are worth their copies


Plan = Callable[..., list[Tensor] | None]
_plans: dict[tuple[torch.Size, torch.dtype, torch.Size], Plan] = {}


def declines(x: Tensor, weight: Tensor) -> str | None:
    """Few numbers, large groups, what is to be multiplied in another type, or what no kernel takes."""
    if x.numel() < FEW:
        return f"torch multiplies fewer than {FEW} numbers sooner"
    if weight.shape[-1] > LARGE:
        return f"torch multiplies groups of more than {LARGE} features sooner"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the type of torch's products"
    return native.declines("grouped", x, weight)


def run(x: Float[Tensor, "*B HK"], weight: Float[Tensor, "H K K"]) -> Float[Tensor, "*B HK"]:
    (y,) = run_kernel("grouped", 0, x.reshape(-1, x.shape[-1]), weight)
    return y.view(x.shape)


def quick(inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor | None:
    """A few rows of two inputs through two matrices each, side by side, without gradients; None for what is not so."""
    if torch.is_autocast_enabled("cpu"):
        return None
    key, given = (inputs[0].shape, inputs[0].dtype, weights[0].shape), (*inputs, *weights)
    plan = _plans.get(key)
    done = None if plan is None else plan(*given)
    if done is None and (plan := _plan(given)) is not None:
        if len(_plans) >= PLANS:
            _plans.clear()
        _plans[key], done = plan, plan(*given)
    return None if done is None else done[0]


def _plan(given: Sequence[Tensor]) -> Plan | None:
    """What takes others like these, for which thinking would take longer than computing."""
    (x, other), weights = given[:2], given[2:]
    groups, rows = weights[0].shape, x.shape[:-1].numel()
    fits = groups[0] * groups[1] == x.shape[-1] and x.shape == other.shape and {w.shape for w in weights} == {groups}
    if not (fits and 0 < rows <= SHORT and all(native.dense(part) is part for part in given)):
        return None
    if native.declines("grouped", *given) is not None:
        return None
    made = x.new_empty((*x.shape[:-1], 4 * x.shape[-1]))
    return direct.again("grouped", "short", (made, rows, *groups[:2], *given), given, (made,))


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    return (native.fresh(inputs[0]),)


def _sizes(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    return len(x), *weight.shape[:2], torch.get_num_threads()


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    x, weight = native.lines(inputs[0]), native.dense(inputs[1])
    native.call("grouped", "forward", x, x.stride(0), weight, *outputs, *_sizes(x, weight))


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    x, weight, grad = native.lines(saved[0]), native.dense(saved[1]), native.lines(grads[0])
    # the weight's is added up where it is alone
    weight_grad = native.fresh(weight) if wanted[0] else torch.zeros_like(weight)
    found = native.fresh(x) if wanted[0] else None, weight_grad if wanted[1] else None
    native.call("grouped", "backward", x, x.stride(0), weight, grad, grad.stride(0), *found, *_sizes(x, weight))
    return found


native.KERNELS["grouped"] = Kernel(_fresh, _forward, _backward, results=1)
