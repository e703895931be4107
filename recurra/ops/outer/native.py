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
    return run(*tensors, reset, before)


def _fields(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    bonus: Tensor | None,
    first: Tensor,
    reset: Tensor | None,
    before: bool,
) -> tuple[Tensor | int | None, ...]:
    """The struct `Outer` of the C source."""
    q, k, v = native.lines(query), native.lines(key), native.lines(value)
    (B, T, H, K), V = k.shape, v.shape[-1]
    g = None if log_decay is None else native.lines(log_decay)
    width = 0 if g is None else 1 if g.ndim == 3 else K
    return (
        *native.rows(q), *native.rows(k), *native.rows(v), *native.rows(g),
        None if bonus is None else native.dense(bonus), reset, first, B, T, H, K, V, width, int(before),
    )  # fmt: skip


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of what `_fields` takes."""
    value, state = inputs[2], inputs[5]
    first = native.dense(state)
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    fields = _fields(*inputs[:5], first, *inputs[6:])
    native.call("outer", "forward", *fields, last, read, torch.get_num_threads())
    return read, last


class _Outer(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs[:-1])
        ctx.before = inputs[-1]
        ctx.set_materialize_grads(False)
        return _forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        read_grad, last_grad = grad_outputs
        query, key, value, log_decay, bonus, state, reset = ctx.saved_tensors
        first = native.dense(state)
        read_grad = native.given(read_grad, value)
        state_grad = native.owned(last_grad, first)
        grads = [torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value)]
        decay_grad = bonus_grad = None
        if log_decay is not None and ctx.needs_input_grad[3]:
            decay_grad = torch.empty(log_decay.shape, dtype=log_decay.dtype)
        if bonus is not None:
            bonus_grad = torch.empty((len(key), *bonus.shape), dtype=bonus.dtype)
        fields = _fields(query, key, value, log_decay, bonus, first, reset, ctx.before)
        native.call(
            "outer", "backward", *fields, read_grad, state_grad, *grads, decay_grad, bonus_grad,
            torch.get_num_threads(),
        )  # fmt: skip
        return *grads, decay_grad, None if bonus_grad is None else bonus_grad.sum(0), state_grad, None, None
