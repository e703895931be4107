"""What all matrix memories in C are called by: their kernels take one struct, whatever each of them does with it.

The read and the last state forward, and, for gradients, the states at every `WINDOW`-th step, from which backward runs
those between again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
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
    reset = None if reset is None else reset.contiguous()
    bonus = None if bonus is None else native.dense(bonus)
    inputs = (*tensors, log_decay, bonus, state)
    if native.tracked(*inputs):
        return _Matrix.apply(kernel, before, reset, *inputs)
    return _forward(None, kernel, before, reset, *inputs)


def _forward(
    marks: Tensor | None, kernel: str, before: bool, reset: Tensor | None, *inputs: Any
) -> tuple[Tensor, Tensor]:
    """Read and last state. Backward needs `marks`."""
    *tensors, log_decay, bonus, state = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    fields = native.memory(tensors, log_decay, first, reset, bonus, before)
    native.call(kernel, "forward", *fields, last, read, marks, torch.get_num_threads())
    return read, last


class _Matrix(Function):
    @staticmethod
    def forward(ctx: Any, kernel: str, before: bool, reset: Tensor | None, *inputs: Any) -> Any:
        marks = native.marks(inputs[-1], inputs[0].shape[1])
        ctx.save_for_backward(reset, marks, *inputs)
        ctx.kernel, ctx.before = kernel, before
        ctx.set_materialize_grads(False)
        return _forward(marks, kernel, before, reset, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        reset, marks, *tensors, log_decay, bonus, state = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first, value = native.dense(state), tensors[2]
        state_grad = native.owned(last_grad, first)
        read_grad = torch.zeros(value.shape, dtype=value.dtype) if read_grad is None else native.dense(read_grad)
        grads = [torch.empty(x.shape, dtype=x.dtype) for x in tensors]
        # the decay's gradient is dear
        decay = log_decay if ctx.needs_input_grad[3 + len(tensors)] else None
        decay_grad = None if decay is None else torch.empty(decay.shape, dtype=decay.dtype)
        bonuses = None if bonus is None else torch.empty((len(state), *bonus.shape), dtype=bonus.dtype)
        native.call(
            ctx.kernel, "backward", *native.memory(tensors, log_decay, first, reset, bonus, ctx.before), marks,
            read_grad, state_grad, *grads, decay_grad, bonuses, torch.get_num_threads(),
        )  # fmt: skip
        return None, None, None, *grads, decay_grad, None if bonuses is None else bonuses.sum(0), state_grad
