"""The neural Turing machine."""

import functools

import torch
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.controller import Controller, Memory, look_up
from recurra.shapes import Float, Tensor

# weights below it are it where they are sharpened: a slot that nobody looks at has a logarithm
FAINT = 1e-30


class NTM(Mixer):
    r"""A recurrent network with a tape: heads that read and write slots, found by what they hold or by moving along.

    .. math::
        \xi_t = W_\xi h_t + b_\xi \qquad h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad
        y_t = W_y [h_t; r_t]

    Each head gets of :math:`\xi` a key k, :math:`\beta` by softplus, g by a sigmoid, three numbers s by softmax and
    :math:`\gamma`, 1 and a softplus, and looks at slots

    .. math::
        w^c = \operatorname{softmax}_i(\beta \cos(k, M_i)) \qquad w^g = g\, w^c + (1 - g)\, w_{t-1} \qquad
        w_i \propto \Big( \sum_{j=-1}^{1} s_j\, w^g_{(i - j) \bmod N} \Big)^{\gamma}

    and those that write, with e by a sigmoid and a, change them, all erasing before any adds, before what is read:

    .. math::
        M_t = M_{t-1} \odot \prod (1 - w\, e^\top) + \sum w\, a^\top \qquad r_t = M_t^\top w^r_t

    Graves et al. 2014, https://arxiv.org/abs/1410.5401, which leaves the order open: here, as its indices say, heads
    that write look at the memory before the step, heads that read at the one after. The tape starts blank and every
    head at its first slot. No form of this runs all steps at once: it goes one by one.

    State: (h, c, r, M, w, begun): `(B, D)` twice, `(B, read_heads * size)`, `(B, slots * size)`, `(B, heads * slots)`,
    those that write first, and 1 after a sequence's first step `(B, 1)`; float32.

    Args:
        width: features in and out, and units of the controller (D).
        slots: of the tape (N).
        size: numbers in a slot.
        read_heads: how many heads read.
        write_heads: how many heads write.

    Raises:
        ValueError: there are fewer than 3 slots, or one of the others is less than 1.
    """

    undecayed = ("controller.interface.bias",)

    def __init__(
        self, width: int, *, slots: int = 32, size: int = 16, read_heads: int = 1, write_heads: int = 1
    ) -> None:
        super().__init__()
        if slots < 3:
            raise ValueError(f"slots is {slots}: it must be at least 3, or a slot's neighbours are not two")
        at_least(1, size=size, read_heads=read_heads, write_heads=write_heads)
        heads = read_heads + write_heads
        access = functools.partial(_access, slots=slots, size=size, write_heads=write_heads)
        self.controller = Controller(
            "ntm", access, width,
            interface=heads * (size + 6) + 2 * write_heads * size,
            read=read_heads * size,
            memory=(slots * size, heads * slots, 1),
        )  # fmt: skip

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        return self.controller.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        return self.controller(x, state, clock)


def _access(
    interface: Float[Tensor, "B I"], state: Memory, *, slots: int, size: int, write_heads: int
) -> tuple[Float[Tensor, "B R"], Memory]:
    """Heads that write look and write, then heads that read look and read."""
    flat, looked, begun = state
    memory, before = flat.unflatten(-1, (slots, size)), looked.unflatten(-1, (-1, slots))
    # before the first step nobody looks anywhere
    before = before + F.pad(1 - begun, (0, slots - 1))[:, None]
    heads = [write_heads, before.shape[1] - write_heads]
    writing, reading = before.split(heads, 1)
    # what all heads say, then what is erased, then what is added
    sizes = [*(count * (size + 6) for count in heads), write_heads * size, write_heads * size]
    of_writing, of_reading, erase, add = interface.split(sizes, -1)
    writing = _look(of_writing.unflatten(-1, (-1, size + 6)), memory, writing)
    erase = erase.sigmoid().unflatten(-1, (-1, 1, size))
    for looks, erases in zip(writing.unbind(1), erase.unbind(1), strict=True):
        memory = torch.addcmul(memory, memory, looks[..., None] * erases, value=-1)
    memory = torch.baddbmm(memory, writing.mT, add.unflatten(-1, (-1, size)))
    reading = _look(of_reading.unflatten(-1, (-1, size + 6)), memory, reading)
    read = (reading @ memory).flatten(1)
    return read, (memory.flatten(1), torch.cat([writing, reading], 1).flatten(1), torch.ones_like(begun))


def _look(
    says: Float[Tensor, "B H S"], memory: Float[Tensor, "B N W"], before: Float[Tensor, "B H N"]
) -> Float[Tensor, "B H N"]:
    """By content or from where it was, then moved along, then sharpened."""
    key, strength, gate, shift, sharp = says.split([memory.shape[-1], 1, 1, 3, 1], -1)
    found = look_up(memory, key, F.softplus(strength))
    gated = torch.lerp(before, found, gate.sigmoid())
    near = torch.stack([gated.roll(-1, -1), gated, gated.roll(1, -1)], -2)
    moved = (F.softmax(shift, -1).unsqueeze(-2) @ near).squeeze(-2)
    # as a softmax of logarithms no power is so small that the sum of all is zero
    return F.softmax((1 + F.softplus(sharp)) * moved.clamp(min=FAINT).log(), -1)
