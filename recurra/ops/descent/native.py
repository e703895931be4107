"""`Descent` in C, by chunks: what each step shares with each is found before, as in `chunk`; the rest is one pass.

A head's weights stay in a thread's cache from chunk to chunk and are written to memory once every `WINDOW` steps, from
where backward runs the chunks between again. Cost: of `chunk`'s products half as many again in backward, and nothing
else that is as large as the weights.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.descent import Descent, DescentState, Net, chunk
from recurra.ops.descent.layout import layout
from recurra.ops.descent.loop import counted
from recurra.ops.descent.shares import Shares, shares_of
from recurra.shapes import Bool, Tensor

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
    if record.mirror is not None:
        # weights are made of sums between the chunks
        return chunk.in_turn(record, state, _taught)
    start, moved, share, position, *momentum = counted(state)
    plan = layout(position, record.key.shape[1], record.chunk, record.reset, record.valid)
    views = record.query, record.key, record.value, record.threshold
    shares = _shares(shares_of(record, plan), record.scale, plan.complete)
    places = plan.step, plan.begins, plan.complete
    read, start, moved, share, *momentum = _run(record, places, views, shares, (start, moved, share, *momentum))
    return read, (start, moved, share, plan.position, *momentum)


def _taught(
    record: Descent, given: chunk.Given, weights: list[Tensor], kept: Tensor, moved: Tensor | None, *momentum: Tensor
) -> tuple[Tensor, ...]:
    """As `chunk.taught`: one chunk, which ends nowhere, so that X is what it adds up."""
    B, _, C, _ = given.key.shape
    step = torch.arange(B * C).view(B, 1, C)
    never = torch.zeros(B, 1, dtype=torch.bool)
    start = torch.cat([weight.flatten(-2) for weight in weights], -1)
    views = (None if x is None else x.transpose(1, 2) for x in given[:4])
    shares = _shares(given.shares.alone(), record.scale, never)
    read, _, after, _, *turned = _run(record, (step, None, never), views, shares, (start, moved, kept, *momentum))
    return read.transpose(1, 2), after, *turned


def _run(
    record: Descent, places: Iterable[Any], views: Iterable[Any], shares: Iterable[Any], state: Sequence[Tensor | None]
) -> list[Tensor]:
    """The kernel: read and last state."""
    numbers = record.value.new_tensor([record.power, record.net.epsilon])
    rest = *state, *[None] * (4 - len(state)), record.initial, record.norm
    inputs = (_net(record.net), numbers, *places, *views, *shares, *rest)
    run = _Descent.apply if native.tracked(*inputs) else _forward
    return [x for x in run(*inputs) if x is not None]


@functools.cache
def _net(net: Net) -> Tensor:
    """What the kernel is told of a network, in whole numbers."""
    return torch.tensor([net.bias, net.approximate == "tanh", *net.sizes])


def _shares(shares: Shares, tau: Tensor | None, complete: Bool[Tensor, "B N"]) -> tuple[Tensor | None, ...]:
    """The struct `Shares` of the C source."""
    kept, pairs, momentum = shares
    ends = torch.cat([pairs[..., -1, :], kept[..., -1:]], -1)
    seen = moved = turns = None
    if momentum is not None:
        moved = momentum.moved
        ends = torch.cat([ends, moved[..., -1:]], -1)
        turns = torch.cat([momentum.written, momentum.kept[..., None]], -1)
    if tau is not None:
        seen, pairs, moved = tau * kept, tau[:, None] * pairs, None if moved is None else tau * moved
        # what a chunk adds is shown by as much as its last step is
        ends = torch.where(complete.mT[..., None, None], tau[-1] * ends, ends)
    return kept, seen, pairs, moved, ends, turns


def _fields(*inputs: Any) -> tuple[Tensor | int | None, ...]:
    """The struct `Record` of the C source."""
    net, numbers, *places = inputs[:5]
    step, begins, complete = map(native.mask, places)
    views = inputs[5:9]
    kept, seen, pairs, moved, ends, turns, *state, initial, norm = inputs[9:]
    rows = (field for x in views for field in native.rows(None if x is None else native.lines(x)))
    shares = (None if x is None else native.dense(x) for x in (kept, seen, pairs, moved, ends, turns))
    own = (None if x is None else native.dense(x) for x in (*state, initial, norm))
    B, T, H, _ = views[0].shape
    N, C = places[0].shape[1:]
    return *rows, *shares, *own, numbers, step, begins, complete, net, B, T, H, N, C, _hold(C), len(net) - 3


def _hold(C: int) -> int:
    """Chunks between two states that forward keeps for backward."""
    return max(1, native.WINDOW // C)


def _forward(*inputs: Any, marks: Tensor | None = None) -> tuple[Tensor | None, ...]:
    """Read and last state. Backward needs `marks`."""
    value, (start, _, share, momentum) = inputs[7], inputs[15:19]
    # steps that did not happen read nothing
    read = torch.zeros(value.shape, dtype=value.dtype)
    last = tuple(None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in (start, start, share, momentum))
    native.call("descent", "forward", *_fields(*inputs), *last, read, marks, torch.get_num_threads())
    return read, *last


class _Descent(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        step, start, momentum = inputs[2], inputs[15], inputs[18]
        N, C = step.shape[1:]
        kept = 1 if momentum is None else 2
        marks = start.new_empty((*start.shape[:2], (N - 1) // _hold(C), kept, start.shape[2]))
        ctx.save_for_backward(*inputs, marks)
        ctx.set_materialize_grads(False)
        return _forward(*inputs, marks=marks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, marks = ctx.saved_tensors
        read, *last = grad_outputs
        views, shares, state, (initial, norm) = inputs[5:9], inputs[9:15], inputs[15:19], inputs[19:]
        B, value = len(views[0]), views[2]
        like = state[0], state[0], *state[2:]
        state_grads = [None if x is None else native.owned(grad, x) for grad, x in zip(last, like, strict=True)]
        view_grads, share_grads = _zeros(views), _zeros(shares)
        # of every row, to be summed
        initial_grad = None if inputs[3] is None else initial.new_zeros((B, *initial.shape))
        norm_grad = None if norm is None else norm.new_empty((B, *norm.shape))
        native.call(
            "descent", "backward", *_fields(*inputs), marks, native.given(read, value), *state_grads,
            *view_grads, *share_grads, initial_grad, norm_grad, torch.get_num_threads(),
        )  # fmt: skip
        sums = (None if x is None else x.sum(0) for x in (initial_grad, norm_grad))
        own = (None if x is None else grad for x, grad in zip(state, state_grads, strict=True))
        return *(None,) * 5, *view_grads, *share_grads, *own, *sums


def _zeros(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Room for gradients, which are zero where a step did not happen."""
    return [None if x is None else torch.zeros(x.shape, dtype=x.dtype) for x in tensors]
