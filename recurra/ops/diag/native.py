"""`Diag` in C: one pass over memory, in time. Costs reading a and b once and writing h once, forward and backward.

Narrow numbers are widened as they are read. Where gradients follow h is also kept wide: rounded, it would be another h,
and over an order the gradient might go another way.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.diag import Diag
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.rings import LOG_SUM, MAX_PLUS, MIN_MAX, SUM
from recurra.shapes import Inexact, Tensor

RINGS = {SUM: 0, MIN_MAX: 2, MAX_PLUS: 3, LOG_SUM: 4}
COMPLEX = 1
# bytes: larger results are written around the cache
AROUND = 1 << 20


def declines(record: Diag, state: Tensor) -> str | None:
    """What no compiled form knows, or what no kernel takes."""
    return unknown(record, state) or native.declines("diag", state, narrow=(record.decay, record.drive))


def unknown(record: Diag, state: Tensor) -> str | None:
    """Another ring, mixed real and complex numbers: what is compiled neither here nor for a GPU."""
    decay, drive, ring, _ = record
    if ring not in RINGS:
        return f"no kernel knows the ring {ring.name}"
    if decay.shape not in (drive.shape, drive.shape[2:]):
        return f"a decay of shape {tuple(decay.shape)} is not one of {tuple(drive.shape)} or of its features"
    kinds = {x.is_complex() for x in (decay, drive, state)}
    if len(kinds) > 1:
        return "decay, drive and state must be all real or all complex"
    if True in kinds and ring is not SUM:
        return f"the ring {ring.name} needs an order, which complex numbers have not"
    return None


def scan(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    decay, drive, ring, reset = record
    kind = COMPLEX if drive.is_complex() else RINGS[ring]
    read, last = run("diag", kind, decay, drive, state, native.mask(reset))
    return read, last


def _flat(x: Tensor, axes: int) -> Tensor:
    """The features, which come after `axes` others, as one dense axis of real numbers."""
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return native.lines(x.flatten(axes) if x.ndim > axes else x.unsqueeze(-1))


def _fields(
    decay: Tensor, drive: Tensor, first: Tensor, reset: Tensor | None, kind: int
) -> tuple[Tensor | int | None, ...]:
    """The struct `Diag` of the C source."""
    constant = decay.ndim < drive.ndim
    flat = _flat(drive, 2)
    # strides of zero: a constant decay is the same along batch and time
    a = native.typed(_flat(decay, 0).expand(flat.shape) if constant else _flat(decay, 2))
    around = int(drive.numel() * first.element_size() > AROUND)
    return (*a, *native.typed(flat), reset, first, *flat.shape, kind, int(constant), around)


def _out(x: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """The struct `Out` of the C source."""
    return x, 0 if x is None else native.NARROW.get(x.dtype, 0)


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    _, drive, state, _ = inputs
    outputs = native.fresh(drive), native.fresh(state)
    # the read in the state's type
    return (*outputs, state.new_empty(drive.shape)) if keep and _narrow(drive) else outputs


def _narrow(drive: Tensor) -> bool:
    return drive.dtype in native.NARROW


def _forward(kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    decay, drive, state, reset = inputs
    read, last, *kept = outputs
    wide, narrow = (kept[0] if kept else None, read) if _narrow(drive) else (read, None)
    native.call(
        "diag", "forward", *_fields(decay, drive, native.dense(state), reset, kind), last, wide, *_out(narrow),
        torch.get_num_threads(),
    )  # fmt: skip


def _saves(kind: int, saved: Given, read: Tensor) -> Given:
    """Over sums no gradient needs the drive: the read stands for its shape and type."""
    decay, drive, state, reset, *kept = saved
    return decay, drive if kind > COMPLEX else read, state, reset, kept[0] if kept else read


def _backward(kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    decay, drive, state, reset, read = saved
    read_grad, last_grad = grads
    first = native.dense(state)
    read_grad, state_grad = native.given(read_grad, drive), native.owned(last_grad, first)
    constant = decay.ndim < drive.ndim
    decay_grad = first.new_zeros((len(drive), *decay.shape)) if constant else native.fresh(decay)
    drive_grad = native.fresh(drive)
    native.call(
        "diag", "backward", *_fields(decay, drive, first, reset, kind), read, *_out(read_grad), state_grad,
        *_out(decay_grad), *_out(drive_grad), torch.get_num_threads(),
    )  # fmt: skip
    return decay_grad.sum(0).to(decay.dtype) if constant else decay_grad, drive_grad, state_grad, None


native.KERNELS["diag"] = Kernel(_fresh, _forward, _backward, saves=_saves)
