"""The memory of a neural Turing machine: heads that look by content or from where they were, move along and sharpen."""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.ops.machine.content import Memory, look_up
from recurra.shapes import Float, Tensor

# weights below it are it where they are sharpened: a slot that nobody looks at has a logarithm
FAINT = 1e-30


class Tape(NamedTuple):
    """Slots in a ring. State: (M, w, begun), heads that write first, and 1 after a sequence's first step."""

    slots: int
    size: int  # numbers in a slot
    read_heads: int
    write_heads: int

    @property
    def heads(self) -> int:
        return self.read_heads + self.write_heads

    @property
    def interface(self) -> int:
        """Numbers that steer a step: what each head says, then what is erased, then what is added."""
        return self.heads * (self.size + 6) + 2 * self.write_heads * self.size

    @property
    def read(self) -> int:
        """Numbers that are read in a step."""
        return self.read_heads * self.size

    @property
    def state(self) -> tuple[int, ...]:
        """Numbers in each tensor of the state."""
        return self.slots * self.size, self.heads * self.slots, 1

    def access(self, interface: Float[Tensor, "B I"], state: Memory) -> tuple[Float[Tensor, "B R"], Memory]:
        """Heads that write look and write, then heads that read look and read."""
        flat, looked, begun = state
        memory, before = flat.unflatten(-1, (self.slots, self.size)), looked.unflatten(-1, (-1, self.slots))
        # before the first step nobody looks anywhere: every head is at its first slot
        before = before + F.pad(1 - begun, (0, self.slots - 1))[:, None]
        heads = [self.write_heads, self.read_heads]
        writing, reading = before.split(heads, 1)
        sizes = [*(count * (self.size + 6) for count in heads), *[self.write_heads * self.size] * 2]
        of_writing, of_reading, erase, add = interface.split(sizes, -1)
        writing = _look(of_writing.unflatten(-1, (-1, self.size + 6)), memory, writing)
        erase = erase.sigmoid().unflatten(-1, (-1, 1, self.size))
        for looks, erases in zip(writing.unbind(1), erase.unbind(1), strict=True):
            memory = torch.addcmul(memory, memory, looks[..., None] * erases, value=-1)
        memory = torch.baddbmm(memory, writing.mT, add.unflatten(-1, (-1, self.size)))
        reading = _look(of_reading.unflatten(-1, (-1, self.size + 6)), memory, reading)
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
