"""`Synapse` in C: a synapse's sigmoid is made where it is used, for four rows at a time.

For gradients the forward keeps v and the denominator of every fused step, and the backward makes the sigmoids again.
"""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.synapse import Synapse
from recurra.shapes import Float, Tensor

ROWS = 4  # that the kernel takes together


def declines(record: Synapse, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("synapse", *record[:9], state)


def scan(record: Synapse, state: Float[Tensor, "B N"]) -> tuple[Float[Tensor, "B T N"], Float[Tensor, "B N"]]:
    source, span, slope, offset, push, conductance, current, leak, capacitance, steps, reset, valid = record
    N = state.shape[1]
    synapses = torch.stack([native.full(part, -1) for part in (slope, offset, push, conductance)], 1)
    synapses = synapses.unflatten(2, (-1, native.LANES)).transpose(1, 2).contiguous()
    # of a neuron that is not there, nothing is divided by zero
    own = torch.stack([native.full(part, -1, fill=1.0) for part in (current, leak, capacitance)])
    reset, valid = map(native.mask, (reset, valid))
    inputs = native.lines(source), span, synapses, own, native.full(state, -1).contiguous(), reset, valid
    tracked = native.tracked(*inputs[:5])
    read, last = _Synapse.apply(steps, N, *inputs) if tracked else _forward(None, steps, N, *inputs)
    return read, last[:, :N]


def _fields(steps: int, N: int, *inputs: Tensor | None) -> tuple[Any, ...]:
    """The struct `Synapse` of the C source."""
    source, span, synapses, own, first, reset, valid = inputs
    assert source is not None
    sizes = (*source.shape, N, steps, torch.get_num_threads())
    return *native.rows(source), *native.rows(span), reset, valid, synapses, own, first, *sizes


def _forward(kept: Tensor | None, steps: int, N: int, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Read and last state; what the backward needs goes to `kept`."""
    source, first = inputs[0], inputs[4]
    read, last = source.new_empty((*source.shape[:2], N)), torch.empty_like(first)
    native.call("synapse", "forward", *_fields(steps, N, *inputs), last, read, kept)
    return read, last


class _Synapse(Function):
    @staticmethod
    def forward(ctx: Any, steps: int, N: int, *inputs: Any) -> Any:
        source, first = inputs[0], inputs[4]
        kept = source.new_empty((*source.shape[:2], 2 * steps + 1, first.shape[1]))
        ctx.sizes = steps, N
        ctx.save_for_backward(*inputs, kept)
        ctx.set_materialize_grads(False)
        return _forward(kept, steps, N, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, kept = ctx.saved_tensors
        source, span, synapses, own, first, *_ = inputs
        read_grad, last_grad = grad_outputs
        B, T, _ = source.shape
        read_grad = source.new_zeros((B, T, ctx.sizes[1])) if read_grad is None else native.dense(read_grad)
        source_grad, span_grad = source.new_empty(source.shape), span.new_empty(span.shape)
        synapses_grad, own_grad = (x.new_empty((B // ROWS + B % ROWS, *x.shape)) for x in (synapses, own))
        first_grad = native.owned(last_grad, first)
        native.call(
            "synapse", "backward", *_fields(*ctx.sizes, *inputs), kept, read_grad, first_grad, source_grad, span_grad,
            synapses_grad, own_grad,
        )  # fmt: skip
        return None, None, source_grad, span_grad, synapses_grad.sum(0), own_grad.sum(0), first_grad, None, None
