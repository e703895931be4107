"""`Address` in C: forward is the recurrence with the memory in registers, backward is `Outer`'s, forward and back.

Of the sum of a' S q over all steps, what slots read is the gradient of a, and what `Outer` reads by a is that of q. So
the gradients here, given those of what was read as a, are what `Outer` reads by them, and `Outer`'s own gradients with
q in place of those of its read. Nothing is kept for them but what came in.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.address import Address
from recurra.ops.native.operators import Given, Kernel, run
from recurra.shapes import Float, Tensor


def declines(record: Address, state: Tensor) -> str | None:
    """What no kernel takes."""
    tensors = (*record[:4], state)
    return native.declines("address", *tensors) or native.declines("outer", *tensors)


def scan(record: Address, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B H K V"]]:
    *tensors, reset = record
    read, last = run("address", 0, *tensors, state, native.mask(reset))
    return read, last


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    write, state = inputs[2], inputs[4]
    return native.fresh(write), native.fresh(state)


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    *tensors, state, reset = inputs
    read, last = outputs
    rows = (field for x in tensors for field in native.rows(native.lines(x)))
    sizes = *tensors[2].shape, state.shape[-1]
    native.call("address", "forward", *rows, reset, native.dense(state), *sizes, last, read, torch.get_num_threads())


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    query, key, write, log_decay, state, reset = saved
    read_grad, last_grad = grads
    first, asked = native.dense(state), native.given(read_grad, write)
    fields = native.memory((asked, write, key), log_decay, first, reset)
    query_grad, last = native.fresh(query), native.fresh(first)
    later = (write.shape[1] - 1) // native.WINDOW
    marks = first.new_empty((*first.shape[:2], later, *first.shape[2:]))
    native.call("outer", "forward", *fields, last, query_grad, marks, torch.get_num_threads())
    state_grad = native.owned(last_grad, first)
    again, write_grad, key_grad, decay_grad = (native.fresh(x) for x in (asked, write, key, log_decay))
    native.call(
        "outer", "backward", *fields, marks, native.dense(query), state_grad, again, write_grad, key_grad, decay_grad,
        None, torch.get_num_threads(),
    )  # fmt: skip
    return query_grad, key_grad, write_grad, decay_grad, state_grad, None


native.KERNELS["address"] = Kernel(_fresh, _forward, _backward)
