"""`Delta` and `LowRank` in C: forward is the recurrence in one pass over S a step, backward is by chunks of 16 steps.

Forward costs four operations (`LowRank` five) for each number of S a step and, for gradients, keeps S at every 64th
step: backward (the UT form: a triangular solve gives a chunk's writes at once) runs the states between again. Narrow
numbers are widened as they are read, a chunk at a time.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.delta import Delta, LowRank
from recurra.shapes import Float, Tensor

KERNELS = {Delta: "delta", LowRank: "low_rank"}


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines(KERNELS[type(record)], state, narrow=record[:-1])


@native.aside
def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    *tensors, reset = record
    reset = None if reset is None else reset.contiguous()
    if native.tracked(*tensors, state):
        return _Delta.apply(KERNELS[type(record)], *tensors, state, reset)
    return _forward(None, KERNELS[type(record)], *tensors, state, reset)


def _forward(marks: Tensor | None, kernel: str, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state of the record's tensors, a first state of any layout and resets. Backward needs `marks`."""
    *tensors, log_decay, state, reset = inputs
    first, value = native.dense(state), tensors[2]
    last, read = torch.empty_like(first), torch.empty(value.shape, dtype=value.dtype)
    fields = native.memory(tensors, log_decay, first, reset)
    native.call(kernel, "forward", *fields, last, read, marks, torch.get_num_threads())
    return read, last


class _Delta(Function):
    @staticmethod
    def forward(ctx: Any, kernel: str, *inputs: Any) -> Any:
        marks = native.marks(inputs[-2], inputs[0].shape[1])
        ctx.save_for_backward(*inputs, marks)
        ctx.kernel = kernel
        ctx.set_materialize_grads(False)
        return _forward(marks, kernel, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, log_decay, state, reset, marks = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        first, value = native.dense(state), tensors[2]
        state_grad = native.owned(last_grad, first)
        read_grad = torch.zeros(value.shape, dtype=value.dtype) if read_grad is None else native.dense(read_grad)
        grads = [None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in (*tensors, log_decay)]
        if not ctx.needs_input_grad[len(grads)]:
            grads[-1] = None  # the decay's gradient is dear
        native.call(
            ctx.kernel, "backward", *native.memory(tensors, log_decay, first, reset), marks, read_grad, state_grad,
            *grads, None, torch.get_num_threads(),
        )  # fmt: skip
        return None, *grads, state_grad, None
