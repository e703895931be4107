"""`Outer` in C: forward is the recurrence with S in registers, backward is by chunks of sixteen steps.

Forward costs three operations for each number of S a step. Backward keeps nothing but the inputs: it runs the states
forward again, holding one per 64 steps.
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
    return native.declines("outer", record.query, record.key, record.value, record.log_decay, record.bonus, state)


def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    query, key, value, log_decay, before, bonus, reset = record
    tensors = (query, key, value, log_decay, bonus if before else None, state)
    reset = None if reset is None else reset.contiguous()
    run = _Outer.apply if native.tracked(*tensors) else _forward
    return run(before, *tensors, reset)


def _fields(before: bool, *inputs: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Outer` of the C source, of the record's tensors, the first state and the resets."""
    *tensors, bonus, first, reset = inputs
    q, k, v, g = (None if x is None else native.lines(x) for x in tensors)
    assert q is not None and v is not None
    (B, T, H, K), V = q.shape, v.shape[-1]
    width = 0 if g is None else 1 if g.ndim == 3 else K
    rows = (x for tensor in (q, k, v, g) for x in native.rows(tensor))
    bonus = None if bonus is None else native.dense(bonus)
    return (*rows, bonus, reset, first, B, T, H, K, V, width, int(before))


def _forward(before: bool, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes, but for a first state of any layout."""
    *tensors, state, reset = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    fields = _fields(before, *tensors, first, reset)
    native.call("outer", "forward", *fields, last, read, torch.get_num_threads())
    return read, last


class _Outer(Function):
    @staticmethod
    def forward(ctx: Any, before: bool, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        ctx.before = before
        ctx.set_materialize_grads(False)
        return _forward(before, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, bonus, state, reset = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first = native.dense(state)
        state_grad = native.owned(last_grad, first)
        query, key, value, decay = (None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in tensors)
        decay = decay if ctx.needs_input_grad[4] else None
        bonuses = None if bonus is None else torch.empty((len(state), *bonus.shape), dtype=bonus.dtype)
        native.call(
            "outer", "backward", *_fields(ctx.before, *tensors, bonus, first, reset),
            native.given(read_grad, tensors[2]), state_grad, query, key, value, decay, bonuses,
            torch.get_num_threads(),
        )  # fmt: skip
        return None, query, key, value, decay, None if bonuses is None else bonuses.sum(0), state_grad, None
