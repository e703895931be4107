"""`Machine` in C: network and memory in one loop over time, weights in the cache, rows of the batch over threads.

For gradients the forward keeps what a long short-term memory keeps, and the external memory at every `WINDOW`-th step,
from which backward runs those between again. Gradients of weights are one product each, over all steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recurra.ops import native
from recurra.ops.machine import Linked, Machine, Tape, content
from recurra.ops.machine.loop import State
from recurra.ops.steps import gaps, product
from recurra.shapes import Bool, Float, Int, Tensor

ENGINES = {Tape: "tape", Linked: "linked"}
# steps between two memories that are kept, and tensors of a memory's state: enums of the C source
WINDOW, PARTS = 32, 6
# features of a panel of weights
WIDE = (64, 32, 16)


def declines(record: Machine, state: State) -> str | None:
    """What no kernel takes."""
    weights = (record.input, record.bias, record.recurrent, record.interface, record.interface_bias)
    return native.declines(ENGINES[type(record.memory)], record.x, *weights, *state) or gaps(record.valid)


def scan(record: Machine, state: State) -> tuple[Float[Tensor, "B T DR"], State]:
    memory, x, weight, bias, recurrent, interface, interface_bias, reset, valid = record
    width = interface.shape[1]
    drive = F.linear(x, weight, bias)
    h, c, *others = state
    # units in whole vectors: those beyond the last stay zero; and so does what is said, but in a single step
    if units := -width % native.LANES:
        drive = native.full(drive.unflatten(-1, (4, width)), -1).flatten(-2)
        recurrent = torch.cat([native.full(recurrent[:, :width], -1), recurrent[:, width:]], 1)
        recurrent = native.full(recurrent.unflatten(0, (4, width)), -2).flatten(0, 1)
        h, c, interface = (native.full(part, -1) for part in (h, c, interface))
    if x.shape[1] > 1:
        interface, interface_bias = native.full(interface, -2), native.full(interface_bias, -1)
    reset = native.mask(reset)
    counts = None if valid is None else valid.sum(1)
    inputs = (drive, recurrent, interface, interface_bias, h, c, *others)
    run = _Machine.apply if native.tracked(*inputs) else _run
    read, h, c, *others = run(memory, reset, counts, *inputs)
    if units:
        read, h, c = torch.cat([read[..., :width], read[..., width + units :]], -1), h[:, :width], c[:, :width]
    return read, (h, c, *others)


def _panels(weight: Float[Tensor, "N M"]) -> Float[Tensor, " NM"]:
    """A matrix as the kernels read it: its columns, filled up to whole vectors, in panels as wide as can be."""
    weight, parts = native.full(weight, -1), []
    while weight.shape[1]:
        wide = next(x for x in WIDE if x <= weight.shape[1])
        whole = weight.shape[1] // wide * wide
        # panels of one width are turned at once
        parts.append(weight[:, :whole].unflatten(1, (-1, wide)).transpose(0, 1).flatten())
        weight = weight[:, whole:]
    return torch.cat(parts)


def _machine(
    memory: Tape | Linked,
    reset: Bool[Tensor, "B T"] | None,
    counts: Int[Tensor, " B"] | None,
    drive: Float[Tensor, "B T _"],
    weights: tuple[Float[Tensor, "..."], Float[Tensor, "..."]],
    lie: bool,
    bias: Float[Tensor, " I"],
    first: Sequence[Tensor],
) -> tuple[Tensor | int | None, ...]:
    """The struct `Machine` of the C source; weights: R and that of what is said, in panels unless they lie."""
    B, T, _ = drive.shape
    parts = memory.state + (0,) * (PARTS - len(memory.state))
    rest = torch.full((1,), content.REST, dtype=drive.dtype)
    sizes = (B, T, first[0].shape[1], memory.read, len(bias), *map(int, memory), *parts)
    return drive, *sizes, *weights, int(lie), bias, rest, reset, counts, *_state(first)


def _state(tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """A state as the kernels take it: those tensors that no memory of its kind has are not there."""
    return (*tensors, *(None,) * (3 + PARTS - len(tensors)))


def _run(
    memory: Tape | Linked,
    reset: Tensor | None,
    counts: Tensor | None,
    *inputs: Tensor,
    kept: Sequence[Tensor | None] = (),
) -> tuple[Tensor, ...]:
    """What is read, and the last state. Backward needs what is `kept`: gates, cells, what is said, and memories."""
    drive, recurrent, interface, bias, *first = map(native.dense, inputs)
    # a single step is done before panels would be filled
    lie = drive.shape[1] == 1
    weights = (recurrent, interface) if lie else (_panels(recurrent.t()), _panels(interface.t()))
    machine = _machine(memory, reset, counts, drive, weights, lie, bias, first)
    last = [torch.empty_like(x) for x in first]
    read = drive.new_empty(*drive.shape[:2], recurrent.shape[1])
    native.call(
        ENGINES[type(memory)], "forward", *machine, *_state(last), read, *(kept or (None,) * 4), torch.get_num_threads()
    )
    return read, *last


class _Machine(Function):
    @staticmethod
    def forward(ctx: Any, memory: Tape | Linked, reset: Tensor | None, counts: Tensor | None, *inputs: Tensor) -> Any:
        drive, interface = inputs[0], inputs[2]
        B, T, wide = drive.shape
        sizes = (T, wide), (T, wide // 4), (T, len(interface)), ((T - 1) // WINDOW, sum(memory.state))
        kept = [drive.new_empty(B, *size) for size in sizes]
        read, *last = _run(memory, reset, counts, *inputs, kept=kept)
        ctx.memory = memory
        # the drive is in what is kept
        ctx.save_for_backward(reset, counts, read, *inputs[1:], *kept)
        return read, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        reset, counts, read, recurrent, interface, bias, *first, gates, cells, said, marks = ctx.saved_tensors
        read_grad, *last_grads = grad_outputs
        recurrent, interface, *first = map(native.dense, (recurrent, interface, *first))
        state_grads = [native.owned(grad, x) for grad, x in zip(last_grads, first, strict=True)]
        weights = _panels(recurrent), _panels(interface)
        drive_grad, said_grad = torch.empty_like(gates), torch.empty_like(said)
        native.call(
            ENGINES[type(ctx.memory)], "backward",
            *_machine(ctx.memory, reset, counts, gates, weights, False, native.dense(bias), first),
            gates, cells, said, marks, native.given(read_grad, read), *_state(state_grads), drive_grad, said_grad,
            torch.get_num_threads(),
        )  # fmt: skip
        # what the network heard at each step is what was read a step before
        heard = torch.cat([torch.cat([first[0], first[2]], -1)[:, None], read[:, :-1]], 1)
        heard = heard if reset is None else heard.masked_fill(reset[..., None], 0)
        width = interface.shape[1]
        weight_grads = (
            product(drive_grad, heard),
            product(said_grad, read[..., :width]),
            said_grad.flatten(0, 1).sum(0),
        )
        return None, None, None, drive_grad, *weight_grads, *state_grads
