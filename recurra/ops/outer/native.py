"""`Outer` in C: forward is the recurrence with S in registers, backward is by chunks of sixteen steps.

Forward costs three operations for each number of S a step and, for gradients, keeps S at every 64th step: backward
runs the states between again. Narrow numbers are widened as they are read, a chunk at a time.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor


def declines(record: Outer, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("outer", state, narrow=(*record[:4], record.bonus))


@native.aside
def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    query, key, value, log_decay, before, bonus, reset = record
    bonus = bonus.to(state.dtype) if before and bonus is not None else None
    tensors = (query, key, value, log_decay, bonus, state)
    reset = None if reset is None else reset.contiguous()
    if native.tracked(*tensors):
        return _Outer.apply(before, *tensors, reset)
    return _forward(None, before, *tensors, reset)


def _fields(before: bool, *inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Record` of the C source, of the record's tensors, the first state and the resets."""
    *tensors, log_decay, bonus, first, reset = inputs
    assert first is not None
    bonus = None if bonus is None else native.dense(bonus)
    return native.memory(tensors, log_decay, first, reset, bonus, before)


def _forward(marks: Tensor | None, before: bool, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes, but for a first state of any layout. Backward needs `marks`."""
    *tensors, state, reset = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    fields = _fields(before, *tensors, first, reset)
    native.call("outer", "forward", *fields, last, read, marks, torch.get_num_threads())
    return read, last


class _Outer(Function):
    @staticmethod
    def forward(ctx: Any, before: bool, *inputs: Any) -> Any:
        marks = native.marks(inputs[-2], inputs[0].shape[1])
        ctx.save_for_backward(*inputs, marks)
        ctx.before = before
        ctx.set_materialize_grads(False)
        return _forward(marks, before, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, bonus, state, reset, marks = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first, value = native.dense(state), tensors[2]
        state_grad = native.owned(last_grad, first)
        read_grad = torch.zeros(value.shape, dtype=value.dtype) if read_grad is None else native.dense(read_grad)
        query, key, value, decay = (None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in tensors)
        decay = decay if ctx.needs_input_grad[4] else None
        bonuses = None if bonus is None else torch.empty((len(state), *bonus.shape), dtype=bonus.dtype)
        native.call(
            "outer", "backward", *_fields(ctx.before, *tensors, bonus, first, reset), marks, read_grad, state_grad,
            query, key, value, decay, bonuses, torch.get_num_threads(),
        )  # fmt: skip
        return None, query, key, value, decay, None if bonuses is None else bonuses.sum(0), state_grad, None
