"""`Settle` in C: over a window the fast weights are what they were, faded, and attention to the states since.

For gradients the forward keeps every step's vectors and the fast weights at the start of every `WINDOW` steps.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
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
    drive, hidden = (native.full(x, -1).contiguous() for x in (drive, hidden))
    recurrent, fast = (native.full(x, -1, -2).contiguous() for x in (recurrent, fast))
    numbers = torch.tensor([decay, rate], dtype=torch.float64, device="cpu")
    read, hidden, fast = run("settle", loops, drive, recurrent, norm, hidden, fast, reset, valid, numbers)
    return read[..., :D], (hidden[:, :D], fast[:, :D, :D].mT.flatten(1))


def _fields(loops: int, inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `Settle` of the C source."""
    drive, recurrent, norm, hidden, fast, reset, valid, numbers = inputs
    B, T, P = drive.shape
    wide = native.full(norm, -1).contiguous()
    tensors = drive, recurrent.T.contiguous(), recurrent, wide, hidden, fast
    return *tensors, reset, valid, numbers, B, T, norm.shape[1], P, loops, torch.get_num_threads()


def _fresh(keep: bool, loops: int, inputs: Given) -> tuple[Tensor, ...]:
    drive, _, _, hidden, fast, *_ = inputs
    B, T, P = drive.shape
    outputs = native.fresh(drive), native.fresh(hidden), native.fresh(fast)
    if not keep:
        return outputs
    # of every step: h before it, what it was driven by, what was normed and by how much; and A by windows
    steps, sharpness = drive.new_empty((B, T, 2 + loops, P)), drive.new_empty((B, T, loops))
    return *outputs, steps, sharpness, fast.new_empty((B, -(-T // native.WINDOW), P, P))


def _forward(loops: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, hidden, fast, *kept = outputs
    native.call("settle", "forward", *_fields(loops, inputs), hidden, fast, read, *(kept or (None,) * 3))


def _backward(loops: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, steps, sharpness, marks = saved
    drive, _, norm, hidden, fast, *_ = inputs
    read_grad, *last_grads = grads
    hidden_grad, fast_grad = (native.owned(g, x) for g, x in zip(last_grads, (hidden, fast), strict=True))
    drive_grad, norm_grad = native.fresh(drive), norm.new_empty((len(drive), 2, drive.shape[2]))
    native.call(
        "settle", "backward", *_fields(loops, inputs), steps, sharpness, marks, native.given(read_grad, drive),
        hidden_grad, fast_grad, drive_grad, norm_grad,
    )  # fmt: skip
    norm_grad = norm_grad.sum(0)[:, : norm.shape[1]]
    return drive_grad, product(drive_grad, steps[:, :, 0]), norm_grad, hidden_grad, fast_grad, None, None, None


native.KERNELS["settle"] = Kernel(_fresh, _forward, _backward, results=3)
