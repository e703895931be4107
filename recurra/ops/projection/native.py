"""`Projection` in C, for the rules that the kernel knows: one row after another, gradients as `adjoint` has them."""

from collections.abc import Sequence

import torch

from recurra.ops import native
from recurra.ops.native.operators import Given, Kernel, run
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
    if torch.compiler.is_compiling() and native.tracked(record.generator, record.span):
        return "torch.compile sees no gradient of a matrix's exponential"
    return native.declines("projection", *tensors, *state)


@torch.library.custom_op("recurra::matrices", mutates_args=())
def _matrices(generator: Tensor, span: Tensor) -> Tensor:
    """As `matrices`, for every row: how many there are may not depend on numbers."""
    return matrices(generator, span).expand(-1, len(span), -1, -1).contiguous()


@_matrices.register_fake
def _(generator: Tensor, span: Tensor) -> Tensor:
    return span.new_empty((span.shape[1], span.shape[0], *generator.shape))


def scan(record: Projection, state: State) -> tuple[Float[Tensor, "B T U"], State]:
    feed, drive, span, generator, rule, feed_hidden, feed_memory, recur_hidden, recur_memory, reset, valid = record
    hidden, memory = state
    gates, (M, N), U = GATES[rule], memory.shape[1:], hidden.shape[1]
    made = _matrices if torch.compiler.is_compiling() else matrices
    change = native.full(made(generator, span), -2, -1)
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
    tensors = (None if x is None else x.contiguous() for x in tensors)
    read, hidden, memory = run("projection", gates, change, *map(native.mask, (reset, valid)), *tensors)
    return read[..., :U], (hidden[:, :U], memory[..., :N])


def _fields(gates: int, inputs: Given) -> tuple[Tensor | int | None, ...]:
    """The struct `Projection` of the C source."""
    change, reset, valid, feed, drive, *weights, hidden, memory = inputs
    turned = (None if x is None else x.T.contiguous() for x in weights[2:])
    rows = change.stride(1) if change.shape[1] > 1 else 0
    sizes = *feed.shape, hidden.shape[1], memory.shape[2], gates, torch.get_num_threads()
    return feed, drive, change, rows, change.stride(0), *weights, *turned, hidden, memory, reset, valid, *sizes


def _fresh(keep: bool, gates: int, inputs: Given) -> tuple[Tensor, ...]:
    drive, *_, hidden, memory = inputs[4:]
    B, T, GU = drive.shape
    U, MN = hidden.shape[1], memory.shape[1] * memory.shape[2]
    outputs = drive.new_empty((B, T, U)), native.fresh(hidden), native.fresh(memory)
    # of every step: h and m before it, m after it, and what drove h
    return (*outputs, *(drive.new_empty((B, T, size)) for size in (U, MN, MN, GU))) if keep else outputs


def _forward(gates: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    read, hidden, memory, *kept = outputs
    native.call("projection", "forward", *_fields(gates, inputs), hidden, memory, read, *(kept or (None,) * 4))


def _backward(gates: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    *inputs, hiddens, memories, after, drives = saved
    change, _, _, feed, _, feed_hidden, feed_memory, recur_hidden, _, hidden, memory = inputs
    read_grad, *last_grads = grads
    hidden_grad, memory_grad = (native.owned(g, x) for g, x in zip(last_grads, (hidden, memory), strict=True))
    f, d = native.fresh(feed), native.fresh(drives)
    given = feed.new_empty((*feed.shape, memory.shape[2])) if wanted[0] else None
    native.call(
        "projection", "backward", *_fields(gates, inputs), hiddens, drives, native.given(read_grad, hiddens),
        hidden_grad, memory_grad, f, d, given,
    )  # fmt: skip
    if given is not None:
        fed = feed + hiddens @ feed_hidden.T + (0 if feed_memory is None else memories @ feed_memory.T)
        moved = memories.view_as(given).clone()
        moved[..., 0] -= fed
        given = (given.mT @ moved).transpose(0, 1).sum_to_size(change.shape)
    return (
        given, None, None, f, d, product(f, hiddens),
        None if feed_memory is None else product(f, memories),
        None if recur_hidden is None else product(d, hiddens),
        product(d, after), hidden_grad, memory_grad,
    )  # fmt: skip


native.KERNELS["projection"] = Kernel(_fresh, _forward, _backward, results=3)
