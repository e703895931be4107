"""`Descent` in C: chunk by chunk, with all that a chunk's steps share, in one pass.

A head's weights stay in a thread's cache from chunk to chunk and are written to memory once every `WINDOW` steps, from
where backward runs the chunks between again. Cost: of `chunk`'s products half as many again in backward, and nothing
else that is as large as the weights.
"""

import functools
from typing import Any

import torch
from torch.autograd import Function

from recurra.ops import native
from recurra.ops.descent import Descent, DescentState, Net, chunk
from recurra.ops.descent.layout import layout
from recurra.ops.descent.loop import counted
from recurra.ops.once import once_differentiable
from recurra.shapes import Tensor

MOST = 8  # layers that the kernel has room for


def declines(record: Descent, state: DescentState) -> str | None:
    """A single step, very many layers, and what no kernel takes."""
    if len(record.net.shapes) > MOST:
        return f"the kernel takes {MOST} layers, not {len(record.net.shapes)}"
    if torch.compiler.is_compiling():
        return "torch.compile cannot see into the kernel"
    tensors = (x for x in record if isinstance(x, Tensor) and x.is_floating_point())
    return chunk.declines(record, state) or native.declines("descent", *tensors, *state)


def scan(record: Descent, state: DescentState) -> tuple[Tensor, DescentState]:
    start, moved, share, position, *momentum = counted(state)
    plan = layout(position, record.key.shape[1], record.chunk, record.reset, record.valid)
    mirror, net = record.mirror, record.net
    numbers = record.value.new_tensor([record.power, net.epsilon, mirror.number if mirror else 0.0])
    steps = record.query, record.key, record.value, record.threshold, record.rate, record.log_decay, record.log_momentum
    own = record.scale, start, moved, share, momentum[0] if momentum else None, record.initial, record.norm
    told = _net(net, mirror.kind if mirror else 0), numbers, plan.step, plan.begins, plan.complete
    inputs = *told, *steps, *own, record.valid
    run = _Descent.apply if native.tracked(*inputs) else _forward
    read, start, moved, share, *momentum = (x for x in run(*inputs) if x is not None)
    return read, (start, moved, share, plan.position, *momentum)


@functools.cache
@torch.inference_mode(False)
def _net(net: Net, kind: int) -> Tensor:
    """What the kernel is told of a network and its mirror, in whole numbers."""
    return torch.tensor([net.bias, net.approximate == "tanh", kind, *net.sizes], device="cpu")


def _fields(*inputs: Any) -> tuple[Tensor | int | None, ...]:
    """The struct `Record` of the C source."""
    net, numbers, *places = inputs[:5]
    step, begins, complete = map(native.mask, places)
    steps = inputs[5:12]
    rows = (field for x in steps for field in native.rows(None if x is None else native.lines(x)))
    scale, start, moved, *rest = inputs[12:19]
    own = (None if x is None else native.dense(x) for x in (scale, start, None if _none(moved) else moved, *rest))
    B, T, H, _ = inputs[7].shape
    N, C = inputs[2].shape[1:]
    return *rows, *own, numbers, step, begins, complete, net, B, T, H, N, C, _hold(N, C), len(net) - 4


def _hold(N: int, C: int) -> int:
    """Chunks between two states that forward keeps for backward."""
    return max(1, min(N, native.WINDOW // C))


def _none(moved: Tensor | None) -> bool:
    """Whether this is one zero for all weights: what is left where no row's chunk is open."""
    return moved is not None and not any(moved.stride()) and not bool(moved[0, 0, 0])


def _room(valid: Tensor | None, x: Tensor) -> Tensor:
    """Room for what is of every step; zero where one did not happen, of which the kernel writes nothing."""
    return x.new_empty(x.shape) if valid is None else x.new_zeros(x.shape)


def _forward(*inputs: Any, marks: Tensor | None = None) -> tuple[Tensor | None, ...]:
    """Read and last state. Backward needs `marks`."""
    complete, value, (start, _, share, momentum), valid = inputs[4], inputs[7], inputs[13:17], inputs[19]
    read = _room(valid, value)
    over = bool(complete[:, -1].all())
    dual, moved, kept, turned = (None if x is None else native.fresh(x) for x in (start, start, share, momentum))
    own = dual, None if over else moved, kept, turned
    native.call("descent", "forward", *_fields(*inputs), *own, read, marks, torch.get_num_threads())
    # no chunk is open: nothing has moved
    return read, dual, start.new_zeros(()).expand(start.shape) if over else moved, kept, turned


class _Descent(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        step, start, momentum = inputs[2], inputs[13], inputs[16]
        N, C = step.shape[1:]
        kept = 1 if momentum is None else 2
        marks = start.new_empty((*start.shape[:2], (N - 1) // _hold(N, C), kept, start.shape[2]))
        ctx.save_for_backward(*inputs, marks)
        ctx.set_materialize_grads(False)
        read, *last = _forward(*inputs, marks=marks)
        if _none(last[1]):
            # whatever came before
            ctx.mark_non_differentiable(last[1])
        return read, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, marks = ctx.saved_tensors
        read, *last = grad_outputs
        steps, (scale, *state, initial, norm, valid) = inputs[5:12], inputs[12:]
        value = steps[2]
        B, H = value.shape[0], value.shape[2]
        given = [None if grad is None else native.dense(grad) for grad in last]
        state_grads = [None if x is None else native.fresh(x) for x in state]
        if not ctx.needs_input_grad[14]:
            state_grads[1] = None
        step_grads = [None if x is None else _room(valid, x) for x in steps]
        # of every row, to be summed
        scale_grad = None if scale is None else scale.new_empty((B, H, *scale.shape))
        initial_grad = None if inputs[3] is None else initial.new_zeros((B, *initial.shape))
        norm_grad = None if norm is None else norm.new_empty((B, *norm.shape))
        native.call(
            "descent", "backward", *_fields(*inputs), marks, native.given(read, value), *given, *state_grads,
            *step_grads, scale_grad, initial_grad, norm_grad, torch.get_num_threads(),
        )  # fmt: skip
        scale_grad = None if scale_grad is None else scale_grad.sum((0, 1))
        sums = (None if x is None else x.sum(0) for x in (initial_grad, norm_grad))
        return *(None,) * 5, *step_grads, scale_grad, *state_grads, *sums, None
