"""`StateSpace` by the blocks of `chunk`, whose kernels are made in C, and whose states go from block to block in C.

As torch makes them, every power of every feature is written, turned, conjugated and read a dozen times: more time than
all the products that they are for. Here it is made once, where it lies in the cache, and again for the gradient, which
keeps nothing of it but a and c.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.state_space import StateSpace, chunk
from recurra.shapes import Bool, Float, Inexact, Tensor


def declines(record: StateSpace, state: Tensor) -> str | None:
    """What blocks decline, or what no kernel takes."""
    return chunk.declines(record, state) or native.declines("state_space", *record[:3], state)


def scan(
    record: StateSpace, state: Inexact[Tensor, "B D N"]
) -> tuple[Float[Tensor, "B T D"], Inexact[Tensor, "B D N"]]:
    return chunk.blocks(_kernels, _carry, record, state)


def _kernels(record: StateSpace, size: int) -> chunk.Kernels:
    return chunk.Kernels(*run("state_space", size, record.log_decay, record.read))


def _fields(size: int, inputs: Given) -> tuple[Tensor | int, ...]:
    """The struct `Space` of the C source."""
    log_decay, read = map(native.dense, inputs)
    return log_decay, read, *log_decay.shape, size, 1 + log_decay.is_complex()


def _fresh(keep: bool, size: int, inputs: Given) -> tuple[Tensor, ...]:
    log_decay, _ = inputs
    features, units = log_decay.shape
    real, states = log_decay.real, units * (1 + log_decay.is_complex())
    shapes = (features, size, size), (features, size, states), (features, size, states)
    return *(real.new_empty(shape) for shape in shapes), native.fresh(log_decay)


def _forward(size: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    native.call("state_space", "forward", *_fields(size, inputs), *outputs, torch.get_num_threads())


def _backward(size: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    given = map(native.given, grads, _fresh(False, size, saved))
    results = tuple(map(native.fresh, saved))
    native.call("state_space", "backward", *_fields(size, saved), *given, *results, torch.get_num_threads())
    return results


def _carry(
    across: Inexact[Tensor, "D N"],
    drive: Inexact[Tensor, "D B Q N"],
    state: Inexact[Tensor, "D B N"],
    reset: Bool[Tensor, "B Q"] | None,
) -> tuple[Inexact[Tensor, "D B Q N"], Inexact[Tensor, "D B N"]]:
    before, last = run("state_space_carry", 0, across, drive, state, native.mask(reset))
    return before, last


def _blocks(across: Tensor, reset: Tensor | None, drive: Tensor) -> tuple[Tensor | int | None, ...]:
    """The struct `Blocks` of the C source."""
    return native.dense(across), reset, *drive.shape, 1 + drive.is_complex()


def _carry_fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    _, drive, state, _ = inputs
    return native.fresh(drive), native.fresh(state)


def _carry_forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    across, drive, state, reset = inputs
    given = native.dense(drive), native.dense(state)
    native.call(
        "state_space", "carry", *_blocks(across, reset, drive), *given, *outputs, torch.get_num_threads()
    )  # fmt: skip


def _carry_saves(kind: int, saved: Given, before: Tensor) -> Given:
    """No gradient needs the drives: the states stand for their shape."""
    across, _, state, reset = saved
    return across, before, state, reset


def _carry_backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    across, before, state, reset = saved
    given = native.given(grads[0], before), native.given(grads[1], state)
    results = torch.zeros_like(across, memory_format=torch.contiguous_format), native.fresh(before), native.fresh(state)
    native.call(
        "state_space", "carry_back", *_blocks(across, reset, before), before, *given, *results, torch.get_num_threads()
    )  # fmt: skip
    return *results, None


native.KERNELS["state_space_carry"] = Kernel(_carry_fresh, _carry_forward, _carry_backward, saves=_carry_saves)
native.KERNELS["state_space"] = Kernel(_fresh, _forward, _backward, results=4)
