"""`Projection` in C, for the rules that the kernel knows: one row after another, gradients as `adjoint` has them."""

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recurra.ops import native
from recurra.ops.projection import Projection, Rule, rules
from recurra.ops.projection.adjoint import matrices
from recurra.ops.steps import product
from recurra.shapes import Float, Tensor

GATES: dict[Rule, int] = {rules.tanh: 0, rules.gated: 1}  # the kernel's rules, and what each reads beside what is new
State = tuple[Float[Tensor, "B U"], Float[Tensor, "B M N"]]


def declines(record: Projection, state: State) -> str | None:
    """Rules that the kernel does not know, and what no kernel takes."""
    if record.rule not in GATES:
        return "the kernel knows no such rule"
    tensors = (part for part in record[:9] if isinstance(part, Tensor))
    return native.declines("projection", *tensors, *state)


def scan(record: Projection, state: State) -> tuple[Float[Tensor, "B T U"], State]:
    feed, drive, span, generator, rule, feed_hidden, feed_memory, recur_hidden, recur_memory, reset, valid = record
    hidden, memory = state
    gates, (M, N), U = GATES[rule], memory.shape[1:], hidden.shape[1]
    change = native.full(matrices(generator, span), -2, -1)
    # gates and signals of units and of polynomials each end with zeros
    tensors = (
        feed.contiguous(),
        native.full(drive.unflatten(2, (-1, U)), -1).flatten(2),
        native.full(feed_hidden, -1),
        None if feed_memory is None else native.full(feed_memory.unflatten(1, (M, N)), -1).flatten(1),
        None if recur_hidden is None else native.full(recur_hidden.unflatten(0, (-1, U)), -1, -2).flatten(0, 1),
        native.full(recur_memory.unflatten(1, (M, N)).unflatten(0, (-1, U)), -1, -3).flatten(0, 1).flatten(1),
        native.full(hidden, -1),
        native.full(memory, -1),
    )
    tensors = tuple(None if x is None else x.contiguous() for x in tensors)
    inputs = gates, change, *map(native.mask, (reset, valid)), *tensors
    tracked = native.tracked(change, *tensors)
    read, hidden, memory = _Projection.apply(*inputs) if tracked else _forward((None,) * 4, *inputs)
    return read[..., :U], (hidden[:, :U], memory[..., :N])


def _fields(gates: int, change: Tensor, *inputs: Any) -> tuple[Any, ...]:
    """The struct `Projection` of the C source."""
    reset, valid, feed, drive, *weights, hidden, memory = inputs
    turned = (None if x is None else x.T.contiguous() for x in weights[2:])
    rows = change.stride(1) if change.shape[1] > 1 else 0
    sizes = *feed.shape, hidden.shape[1], memory.shape[2], gates, torch.get_num_threads()
    return feed, drive, change, rows, change.stride(0), *weights, *turned, hidden, memory, reset, valid, *sizes


def _forward(kept: tuple[Tensor | None, ...], *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Read and last state; what the backward needs goes to `kept`."""
    *_, hidden, memory = inputs
    read, *last = hidden.new_empty((*inputs[4].shape[:2], hidden.shape[1])), *map(torch.empty_like, (hidden, memory))
    fields = _fields(*inputs)
    native.call("projection", "forward", *fields, *last, read, *kept)
    return read, last[0], last[1]


class _Projection(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        drive, *_, hidden, memory = inputs[5:]
        B, T, GU = drive.shape
        # of every step: h and m before it, m after it, and what drove h
        sizes = hidden.shape[1], memory[0].numel(), memory[0].numel(), GU
        kept = tuple(drive.new_empty((B, T, size)) for size in sizes)
        ctx.gates = inputs[0]
        ctx.save_for_backward(*inputs[1:], *kept)
        ctx.set_materialize_grads(False)
        return _forward(kept, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, hiddens, memories, after, drives = ctx.saved_tensors
        change, _, _, feed, _, feed_hidden, feed_memory, recur_hidden, _, hidden, memory = inputs
        read_grad, *last_grads = grad_outputs
        hidden_grad, memory_grad = (native.owned(g, x) for g, x in zip(last_grads, (hidden, memory), strict=True))
        f, d = torch.empty_like(feed), torch.empty_like(drives)
        given = feed.new_empty((*feed.shape, memory.shape[2])) if ctx.needs_input_grad[1] else None
        fields = _fields(ctx.gates, *inputs)
        native.call(
            "projection", "backward", *fields, hiddens, drives, native.given(read_grad, hiddens), hidden_grad,
            memory_grad, f, d, given,
        )  # fmt: skip
        if given is not None:
            fed = feed + hiddens @ feed_hidden.T + (0 if feed_memory is None else memories @ feed_memory.T)
            moved = memories.view_as(given).clone()
            moved[..., 0] -= fed
            given = (given.mT @ moved).transpose(0, 1).sum_to_size(change.shape)
        return (
            None, given, None, None, f, d, product(f, hiddens),
            None if feed_memory is None else product(f, memories),
            None if recur_hidden is None else product(d, hiddens),
            product(d, after), hidden_grad, memory_grad,
        )  # fmt: skip
