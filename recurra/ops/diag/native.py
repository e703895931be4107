"""`Diag` in C: one pass over memory, in time. Costs reading a and b once and writing h once, forward and backward.

Narrow numbers are widened as they are read. Where gradients follow h is also kept wide: rounded, it would be another h,
and over an order the gradient might go another way. What torch.compile makes has it as an operator of its own.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.diag import Diag
from recurra.ops.rings import LOG_SUM, MAX_PLUS, MIN_MAX, SUM
from recurra.shapes import Bool, Inexact, Tensor

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
    inputs = (decay, drive, state, None if reset is None else reset.contiguous(), kind)
    if torch.compiler.is_compiling():
        return _operator(*inputs)[:2]
    return _Diag.apply(*inputs) if native.tracked(decay, drive, state) else _forward(False, *inputs)[:2]


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


def _forward(
    keep: bool, decay: Tensor, drive: Tensor, state: Tensor, reset: Bool[Tensor, "B T"] | None, kind: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Read, last state and, if asked to `keep` it, the read in the state's type."""
    first, narrow = native.dense(state), drive.dtype in native.NARROW
    last, read = torch.empty_like(first), torch.empty(drive.shape, dtype=drive.dtype)
    whole = read if not narrow else torch.empty(drive.shape, dtype=first.dtype) if keep else None
    native.call(
        "diag", "forward", *_fields(decay, drive, first, reset, kind), last, whole, *_out(read if narrow else None),
        torch.get_num_threads(),
    )  # fmt: skip
    return read, last, whole


def _backward(
    decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, whole: Tensor, read_grad: Tensor | None,
    last_grad: Tensor | None, kind: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of decay, drive and state. Over sums no gradient needs the drive: only its shape and type are read."""
    first = native.dense(state)
    read_grad = torch.zeros(drive.shape, dtype=drive.dtype) if read_grad is None else native.dense(read_grad)
    state_grad = native.owned(last_grad, first)
    constant = decay.ndim < drive.ndim
    if constant:
        decay_grad = torch.zeros((len(drive), *decay.shape), dtype=first.dtype)
    else:
        decay_grad = torch.empty(decay.shape, dtype=decay.dtype)
    drive_grad = torch.empty(drive.shape, dtype=drive.dtype)
    native.call(
        "diag", "backward", *_fields(decay, drive, first, reset, kind), whole, *_out(read_grad), state_grad,
        *_out(decay_grad), *_out(drive_grad), torch.get_num_threads(),
    )  # fmt: skip
    return decay_grad.sum(0).to(decay.dtype) if constant else decay_grad, drive_grad, state_grad


class _Diag(Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, kind: int) -> Any:
        read, last, whole = _forward(True, decay, drive, state, reset, kind)
        ctx.save_for_backward(decay, drive if kind > COMPLEX else read, state, reset, whole)
        ctx.kind = kind
        ctx.set_materialize_grads(False)
        return read, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        decay, drive, state, reset, whole = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        return *_backward(decay, drive, state, reset, whole, read_grad, last_grad, ctx.kind), None, None


# The same two as operators that torch.compile sees: their outputs' shapes and types, and each other's gradient. Called
# elsewhere they would cost more than what a step computes.


@torch.library.custom_op("recurra::diag", mutates_args=())
def _operator(
    decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, kind: int
) -> tuple[Tensor, Tensor, Tensor]:
    read, last, whole = _forward(True, decay, drive, state, reset, kind)
    # an operator may not give one result twice
    return read, last, read.new_empty(0) if whole is None or whole is read else whole


@_operator.register_fake
def _(decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, kind: int) -> tuple[Tensor, Tensor, Tensor]:
    narrow = drive.dtype in native.NARROW
    whole = torch.empty(drive.shape, dtype=state.dtype) if narrow else torch.empty(0, dtype=drive.dtype)
    return torch.empty(drive.shape, dtype=drive.dtype), torch.empty(state.shape, dtype=state.dtype), whole


@torch.library.custom_op("recurra::diag_backward", mutates_args=())
def _operator_back(
    decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, whole: Tensor, read_grad: Tensor,
    last_grad: Tensor, kind: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _backward(decay, drive, state, reset, whole, read_grad, last_grad, kind)


@_operator_back.register_fake
def _(
    decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, whole: Tensor, read_grad: Tensor,
    last_grad: Tensor, kind: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(torch.empty(x.shape, dtype=x.dtype) for x in (decay, drive, state))  # pyright: ignore[reportReturnType]


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    decay, drive, state, reset, ctx.kind = inputs
    read, _, whole = output
    narrow = drive.dtype in native.NARROW
    ctx.save_for_backward(decay, drive if ctx.kind > COMPLEX else read, state, reset, whole if narrow else read)


def _back(ctx: Any, read_grad: Tensor, last_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    decay, drive, state, reset, whole = ctx.saved_tensors
    return *_operator_back(decay, drive, state, reset, whole, read_grad, last_grad, ctx.kind), None, None


_operator.register_autograd(_back, setup_context=_keep)
