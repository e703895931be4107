"""`Synapse` in C: a synapse's sigmoid is made where it is used, for four rows at a time.

For gradients the forward keeps v and the denominator of every fused step, and the backward makes the sigmoids again.
"""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.synapse import Synapse
from recurra.shapes import Float, Tensor

ROWS = 4  # that the kernel takes together


def declines(record: Synapse, state: Tensor) -> str | None:
    """What no kernel takes."""
    return native.declines("synapse", *record[:9], state)


def scan(record: Synapse, state: Float[Tensor, "B N"]) -> tuple[Float[Tensor, "B T N"], Float[Tensor, "B N"]]:
    source, span, slope, offset, push, conductance, current, leak, capacitance, steps, reset, valid = record
    synapses = torch.stack([native.full(part, -1) for part in (slope, offset, push, conductance)], 1)
    synapses = synapses.unflatten(2, (-1, native.LANES)).transpose(1, 2).contiguous()
    # of a neuron that is not there, nothing is divided by zero
    own = torch.stack([native.full(part, -1, fill=1.0) for part in (current, leak, capacitance)])
    reset, valid = map(native.mask, (reset, valid))
    first = native.full(state, -1).contiguous()
    read, last = run("synapse", steps, native.lines(source), span, synapses, own, first, reset, valid)
    return read, last[:, : state.shape[1]]


def _neurons(inputs: Given) -> int:
    """How many there are: what is heard and is no input."""
    source, _, synapses, *_ = inputs
    return len(synapses) - source.shape[2]


def _fields(steps: int, inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `Synapse` of the C source."""
    source, span, synapses, own, first, reset, valid = inputs
    sizes = (*source.shape, _neurons(inputs), steps, torch.get_num_threads())
    return *native.rows(source), *native.rows(span), reset, valid, synapses, own, first, *sizes


def _fresh(keep: bool, steps: int, inputs: Given) -> tuple[Tensor, ...]:
    source, first = inputs[0], inputs[4]
    B, T, _ = source.shape
    outputs = source.new_empty((B, T, _neurons(inputs))), native.fresh(first)
    # v and the denominator of every fused step, and the last v
    return (*outputs, source.new_empty((B, T, 2 * steps + 1, first.shape[1]))) if keep else outputs


def _forward(steps: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, last, *kept = outputs
    native.call("synapse", "forward", *_fields(steps, inputs), last, read, kept[0] if kept else None)


def _backward(steps: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, kept = saved
    source, span, synapses, own, first, *_ = inputs
    read_grad, last_grad = grads
    B, T, _ = source.shape
    read_grad = source.new_zeros((B, T, _neurons(inputs))) if read_grad is None else native.dense(read_grad)
    source_grad, span_grad = source.new_empty(source.shape), span.new_empty(span.shape)
    synapses_grad, own_grad = (x.new_empty((B // ROWS + B % ROWS, *x.shape)) for x in (synapses, own))
    first_grad = native.owned(last_grad, first)
    native.call(
        "synapse", "backward", *_fields(steps, inputs), kept, read_grad, first_grad, source_grad, span_grad,
        synapses_grad, own_grad,
    )  # fmt: skip
    return source_grad, span_grad, synapses_grad.sum(0), own_grad.sum(0), first_grad, None, None


native.KERNELS["synapse"] = Kernel(_fresh, _forward, _backward)
