"""`Settle` in C: over a window the fast weights are what they were, faded, and attention to the states since.

For gradients the forward keeps every step's vectors and the fast weights at the start of every `WINDOW` steps.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.settle import Settle
from recurra.ops.steps import product
from recurra.shapes import Float, Tensor

State = tuple[Float[Tensor, "B D"], Float[Tensor, "B DD"]]


def declines(record: Settle, state: State) -> str | None:
    """What no kernel takes."""
    return native.declines("settle", *record[:3], *state)


def scan(record: Settle, state: State) -> tuple[Float[Tensor, "B T D"], State]:
    drive, recurrent, norm, decay, rate, loops, reset, valid = record
    hidden, fast = state
    D = drive.shape[2]
    # the kernel reads it by what it multiplies
    fast = fast.unflatten(1, (D, D)).mT
    reset, valid = map(native.mask, (reset, valid))
    vectors, squares = (drive, norm, hidden), (recurrent, fast)
    drive, norm, hidden = (native.full(x, -1).contiguous() for x in vectors)
    recurrent, fast = (native.full(x, -1, -2).contiguous() for x in squares)
    tensors = drive, recurrent, norm, hidden, fast
    numbers = torch.tensor([decay, rate], dtype=torch.float64)
    inputs = D, loops, numbers, reset, valid, *tensors
    read, hidden, fast = _Settle.apply(*inputs) if native.tracked(*tensors) else _forward((None, None, None), *inputs)
    return read[..., :D], (hidden[:, :D], fast[:, :D, :D].mT.flatten(1))


def _fields(D: int, loops: int, numbers: Tensor, *inputs: Any) -> tuple[Any, ...]:
    """The struct `Settle` of the C source."""
    reset, valid, drive, recurrent, norm, hidden, fast = inputs
    B, T, P = drive.shape
    tensors = drive, recurrent.T.contiguous(), recurrent, norm, hidden, fast
    return *tensors, reset, valid, numbers, B, T, D, P, loops, torch.get_num_threads()


def _forward(kept: tuple[Tensor | None, ...], *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Read and last state; what the backward needs goes to `kept`."""
    drive, *_, hidden, fast = inputs[5:]
    outputs = torch.empty_like(hidden), torch.empty_like(fast), torch.empty_like(drive)
    fields = _fields(*inputs)
    native.call("settle", "forward", *fields, *outputs, *kept)
    return outputs[2], outputs[0], outputs[1]


class _Settle(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        loops, drive, fast = inputs[1], inputs[5], inputs[9]
        B, T, P = drive.shape
        # of every step: h before it, what it was driven by, what was normed and by how much; and A by windows
        steps, sharpness = drive.new_empty((B, T, 2 + loops, P)), drive.new_empty((B, T, loops))
        kept = steps, sharpness, fast.new_empty((B, -(-T // native.WINDOW), P, P))
        ctx.numbers = inputs[:3]
        ctx.save_for_backward(*inputs[3:], *kept)
        ctx.set_materialize_grads(False)
        return _forward(kept, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, steps, sharpness, marks = ctx.saved_tensors
        drive, _, norm, hidden, fast = inputs[2:]
        read_grad, *last_grads = grad_outputs
        hidden_grad, fast_grad = (native.owned(g, x) for g, x in zip(last_grads, (hidden, fast), strict=True))
        drive_grad, norm_grad = torch.empty_like(drive), norm.new_empty((len(drive), *norm.shape))
        fields = _fields(*ctx.numbers, *inputs)
        native.call(
            "settle", "backward", *fields, steps, sharpness, marks, native.given(read_grad, drive), hidden_grad,
            fast_grad, drive_grad, norm_grad,
        )  # fmt: skip
        recurrent_grad = product(drive_grad, steps[:, :, 0])
        return None, None, None, None, None, drive_grad, recurrent_grad, norm_grad.sum(0), hidden_grad, fast_grad
