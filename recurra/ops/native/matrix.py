"""What all matrix memories in C are called by: their kernels take one struct, whatever each of them does with it.

The read and the last state forward, and, for gradients, the states at every `WINDOW`-th step, from which backward runs
those between again.
"""

from collections.abc import Sequence
from functools import partial

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
from recurra.shapes import Bool, Float, Tensor


def scan(
    kernel: str,
    tensors: Sequence[Tensor],
    log_decay: Tensor | None,
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"] | None,
    bonus: Float[Tensor, "H K"] | None = None,
    before: bool = False,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """Run a kernel over time.

    Args:
        kernel: its name.
        tensors: query, key, value, and what else the record has in its order.
        log_decay: for each step of a head or of its keys; None: nothing fades.
        state: the first; of any layout.
        reset: where sequences begin.
        bonus: of `before`, in the state's type.
        before: the query reads before the write.
    """
    reset = native.mask(reset)
    read, last = run(kernel, int(before), *tensors, log_decay, bonus, state, reset)
    return read, last


def _fresh(keep: bool, before: int, inputs: Given) -> tuple[Tensor, ...]:
    value, state = inputs[2], inputs[-2]
    outputs = native.fresh(value), native.fresh(state)
    if not keep:
        return outputs
    # states, one per WINDOW steps but for the first
    later = (value.shape[1] - 1) // native.WINDOW
    return *outputs, state.new_empty((*state.shape[:2], later, *state.shape[2:]))


def _forward(kernel: str, before: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    *tensors, log_decay, bonus, state, reset = inputs
    read, last, *marks = outputs
    bonus = None if bonus is None else native.dense(bonus)
    fields = native.memory(tensors, log_decay, native.dense(state), reset, bonus, before)
    native.call(kernel, "forward", *fields, last, read, marks[0] if marks else None, torch.get_num_threads())


def _backward(kernel: str, before: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *tensors, log_decay, bonus, state, reset, marks = saved
    read_grad, last_grad = grads
    first, value, bonus = native.dense(state), tensors[2], None if bonus is None else native.dense(bonus)
    state_grad = native.owned(last_grad, first)
    found = [native.fresh(x) for x in tensors]
    # the decay's gradient is dear
    decay = log_decay if wanted[len(tensors)] else None
    decay_grad = None if decay is None else native.fresh(decay)
    bonuses = None if bonus is None else bonus.new_empty((len(state), *bonus.shape))
    native.call(
        kernel, "backward", *native.memory(tensors, log_decay, first, reset, bonus, before), marks,
        native.given(read_grad, value), state_grad, *found, decay_grad, bonuses, torch.get_num_threads(),
    )  # fmt: skip
    return *found, decay_grad, None if bonuses is None else bonuses.sum(0), state_grad, None


for _name in ("outer", "delta", "low_rank"):
    native.KERNELS[_name] = Kernel(_fresh, partial(_forward, _name), partial(_backward, _name))
