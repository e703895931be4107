"""`Machine` in C: network and memory in one loop over time, weights in the cache, rows of the batch over threads.

For gradients the forward keeps what a long short-term memory keeps, and the external memory at every `WINDOW`-th step,
from which backward runs those between again. Gradients of weights are one product each, over all steps.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch.nn import functional as F

from recurra.ops import native
from recurra.ops.machine import Linked, Machine, Tape, content
from recurra.ops.machine.loop import State
from recurra.ops.native.operators import Given, Kernel, run
from recurra.ops.steps import gaps, product
from recurra.shapes import Float, Tensor

ENGINES = {Tape: "tape", Linked: "linked"}
# without links there are fewer results, and how many is a kernel's own
UNLINKED = "unlinked"
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
    sizes = torch.tensor([*map(int, memory)], device="cpu")
    inputs = (drive, recurrent, interface, interface_bias, h, c, *others, sizes, reset, counts)
    name = UNLINKED if isinstance(memory, Linked) and not memory.links else ENGINES[type(memory)]
    read, h, c, *others = run(name, 0, *inputs)
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
    drive: Float[Tensor, "B T _"], weights: tuple[Tensor, Tensor], lie: bool, rest: Given
) -> tuple[Tensor | int | None, ...]:
    """The struct `Machine` of the C source; weights: R and that of what is said, in panels unless they lie."""
    bias, *first, memory, reset, counts = rest
    B, T, _ = drive.shape
    units, parts = first[0].shape[1], [part.shape[1] for part in first[2:]]
    parts += [0] * (1 + PARTS - len(parts))
    like = drive.new_full((1,), content.REST)
    sizes = (B, T, units, parts[0], len(bias), *memory.tolist(), *parts[1:])
    return drive, *sizes, *weights, int(lie), bias, like, reset, counts, *_state(first)


def _state(tensors: Given) -> Given:
    """A state as the kernels take it: those tensors that no memory of its kind has are not there."""
    return (*tensors, *(None,) * (3 + PARTS - len(tensors)))


def _dense(tensors: Given) -> Given:
    return [None if x is None else native.dense(x) for x in tensors]


def _fresh(keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
    drive, recurrent, _, bias, *first = inputs[:-3]
    B, T, wide = drive.shape
    outputs = drive.new_empty((B, T, recurrent.shape[1])), *map(native.fresh, first)
    if not keep:
        return outputs
    # gates, cells, what is said, and memories
    sizes = (T, wide), (T, wide // 4), (T, len(bias)), ((T - 1) // WINDOW, sum(part.shape[1] for part in first[3:]))
    return *outputs, *(drive.new_empty((B, *size)) for size in sizes)


def _forward(engine: str, kind: int, inputs: Given, outputs: Sequence[Tensor]) -> None:
    drive, recurrent, interface, *rest = _dense(inputs)
    states = len(inputs) - 7
    read, last, kept = outputs[0], outputs[1 : 1 + states], outputs[1 + states :]
    # a single step is done before panels would be filled
    lie = drive.shape[1] == 1
    weights = (recurrent, interface) if lie else (_panels(recurrent.t()), _panels(interface.t()))
    machine = _machine(drive, weights, lie, rest)
    native.call(engine, "forward", *machine, *_state(last), read, *(kept or (None,) * 4), torch.get_num_threads())


def _saves(kind: int, everything: Given, read: Tensor) -> Given:
    """The drive is in the gates; and what the network heard is what was read a step before."""
    _, *rest, gates, cells, said, marks = everything
    return gates, *rest, read, cells, said, marks


def _backward(engine: str, kind: int, wanted: Sequence[bool], saved: Given, grads: Given) -> Given:
    gates, recurrent, interface, *rest, read, cells, said, marks = _dense(saved)
    read_grad, *last_grads = grads
    reset, first = rest[-2], rest[1:-3]
    state_grads = [native.owned(grad, x) for grad, x in zip(last_grads, first, strict=True)]
    drive_grad, said_grad = native.fresh(gates), native.fresh(said)
    native.call(
        engine, "backward", *_machine(gates, (_panels(recurrent), _panels(interface)), False, rest),
        gates, cells, said, marks, native.given(read_grad, read), *_state(state_grads), drive_grad, said_grad,
        torch.get_num_threads(),
    )  # fmt: skip
    heard = torch.cat([torch.cat([first[0], first[2]], -1)[:, None], read[:, :-1]], 1)
    heard = heard if reset is None else heard.masked_fill(reset[..., None], 0)
    weight_grads = (
        product(drive_grad, heard),
        product(said_grad, read[..., : interface.shape[1]]),
        said_grad.flatten(0, 1).sum(0),
    )
    return drive_grad, *weight_grads, *state_grads, None, None, None


for _name, _engine, _states in (("tape", "tape", 6), ("linked", "linked", 9), (UNLINKED, "linked", 7)):
    _passes = partial(_forward, _engine), partial(_backward, _engine)
    native.KERNELS[_name] = Kernel(_fresh, *_passes, results=1 + _states, saves=_saves)
