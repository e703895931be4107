"""Attention in C: sixteen queries at a time over the keys that they see. Costs (K + V) for each pair that is seen.

Keys and values of a head are copied once, and going back their gradients are gathered in as much room again: a thread
works at one head, and at the scores of sixteen of its queries, which are made again going back.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run as run_kernel
from recurra.shapes import Float, Int, Tensor

FEW = 8  # queries of a row, which torch answers sooner


def declines(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None) -> str | None:
    """Few queries, what is to be multiplied in another type, or what no kernel takes."""
    if query.shape[1] < FEW:
        return f"torch answers fewer than {FEW} queries sooner"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the type of torch's products"
    return native.declines("attention", narrow=(query, key, value, added))


def run(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    first: Int[Tensor, "#B T"],
    last: Int[Tensor, "#B T"],
    added: Float[Tensor, "B T H A"] | None = None,
) -> Float[Tensor, "B T H V"]:
    first, last = torch.broadcast_tensors(first.long(), last.long())
    (y,) = run_kernel("attention", 0, query, key, value, added, native.mask(first), native.mask(last))
    return y


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    query, _, value, *_ = inputs
    return (query.new_empty(*query.shape[:-1], value.shape[-1]),)


def _fields(*inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Given` of the C source."""
    query, key, value, added, first, last = inputs
    assert query is not None and key is not None and value is not None and first is not None
    batch, steps, heads, size = query.shape
    ages, each = 0 if added is None else added.shape[-1], steps if len(first) > 1 else 0
    every = (field for x in (query, key, value, added) for field in native.typed(x))
    return (*every, first, last, ages, each, batch, steps, key.shape[1], heads, size, value.shape[-1])


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    native.call("attention", "forward", *_fields(*inputs), *outputs, torch.get_num_threads())


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    found = [None if x is None else native.fresh(x) for x in saved[:4]]
    fields = *_fields(*saved), *native.typed(grads[0]), *found
    native.call("attention", "backward", *fields, torch.get_num_threads())
    return *found, None, None


native.KERNELS["attention"] = Kernel(_fresh, _forward, _backward, results=1)
