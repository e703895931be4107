"""Waves in C, from where vectors lie to where their features belong. Costs reading x and writing y once, and both
twice back; K products, a sine and a cosine for each wave, and twice as much back, as nothing is kept."""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run as run_kernel
from recurra.shapes import Float, Tensor


def declines(x: Tensor, waves: Tensor, scale: Tensor | None) -> str | None:
    """What is to be multiplied in another type, or what no kernel takes."""
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the type of torch's products"
    return native.declines("waves", x, waves, scale)


def run(
    x: Float[Tensor, "B T H K"], waves: Float[Tensor, "H R K"], scale: Float[Tensor, "B T H"] | None
) -> Float[Tensor, "B T H W"]:
    (y,) = run_kernel("waves", 0, x, waves, scale)
    return y


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    x, waves, _ = inputs
    return (x.new_empty((*x.shape[:3], 2 * waves.shape[1])),)


def _fields(x: Tensor, waves: Tensor, scale: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Record` of the C source."""
    return *native.rows(native.lines(x)), native.dense(waves), *native.rows(scale), *x.shape, waves.shape[1]


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    native.call("waves", "forward", *_fields(*inputs), *outputs, torch.get_num_threads())


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    found = [None if x is None else native.fresh(x) for x in saved]
    native.call("waves", "backward", *_fields(*saved), native.dense(grads[0]), *found, torch.get_num_threads())
    return found


native.KERNELS["waves"] = Kernel(_fresh, _forward, _backward, results=1)
