"""The memory of a differentiable neural computer: slots that are allocated, freed, and linked as they were written."""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from recurra.ops.machine.content import Memory, look_up
from recurra.shapes import Float, Tensor

# as in the authors' code, the least that a slot is used: a product of usages has a gradient
LEAST = 1e-6


class Linked(NamedTuple):
    """Slots with their usage and links. State: (M, u, w, w^r, L, p); without links the last two are not there."""

    slots: int
    size: int  # numbers in a slot
    heads: int  # that read
    links: bool = True

    @property
    def interface(self) -> int:
        """Numbers that steer a step: of writing, then of each head."""
        return self.heads * (self.size + 2 + 3 * self.links) + 3 * self.size + 3

    @property
    def read(self) -> int:
        """Numbers that are read in a step."""
        return self.heads * self.size

    @property
    def state(self) -> tuple[int, ...]:
        """Numbers in each tensor of the state."""
        slots = self.slots
        chain = (slots * slots, slots) if self.links else ()
        return slots * self.size, slots, slots, self.heads * slots, *chain

    def access(self, interface: Float[Tensor, "B I"], state: Memory) -> tuple[Float[Tensor, "B R"], Memory]:
        """Free, allocate, write, link, read."""
        flat, usage, written, looked, *chain = state
        memory, looked = flat.unflatten(-1, (self.slots, self.size)), looked.unflatten(-1, (self.heads, self.slots))
        of_heads = interface.shape[-1] - 3 * self.size - 3
        key, value, erase, strength, allocate, write, say = interface.split([self.size] * 3 + [1] * 3 + [of_heads], -1)
        keys, strengths, free, *modes = say.unflatten(-1, (self.heads, -1)).split(
            [self.size, 1, 1] + [3] * bool(chain), -1
        )
        usage = torch.addcmul(usage + written, usage, written, value=-1)
        for kept in (1 - free.sigmoid() * looked).unbind(1):
            usage = usage * kept
        like = look_up(memory, key[:, None], 1 + F.softplus(strength[:, None])).squeeze(1)
        written = write.sigmoid() * torch.lerp(like, allocation(usage), allocate.sigmoid())
        to = written[..., None]
        memory = torch.addcmul(memory, memory, to * erase.sigmoid()[:, None], value=-1)
        memory = torch.addcmul(memory, to, value[:, None])
        found = look_up(memory, keys, 1 + F.softplus(strengths))
        if chain:
            link, chain = _link(chain[0].unflatten(-1, (self.slots, self.slots)), chain[1], written)
            back, content, on = F.softmax(modes[0], -1).split(1, -1)
            found = torch.addcmul(content * found, back, looked @ link)
            found = torch.addcmul(found, on, looked @ link.mT)
        return (found @ memory).flatten(1), (memory.flatten(1), usage, written, found.flatten(1), *chain)


def allocation(usage: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """How much of each slot is free to be written: all of the one used least, of others what those before leave."""
    # in steps of the least, so that a rounding does not decide between slots used alike
    order = (usage.detach() / LEAST).round().argsort(stable=True, dim=-1)
    used = (LEAST + (1 - LEAST) * usage).gather(-1, order)
    before = F.pad(used.cumprod(-1)[:, :-1], (1, 0), value=1.0)
    return torch.empty_like(used).scatter(1, order, (1 - used) * before)


def _link(
    link: Float[Tensor, "B N N"], last: Float[Tensor, "B N"], written: Float[Tensor, "B N"]
) -> tuple[Float[Tensor, "B N N"], list[Tensor]]:
    """What is written now comes after what was written last."""
    to = written[..., None]
    link = torch.addcmul((1 - to - to.mT) * link, to, last[:, None])
    link = link.masked_fill(torch.eye(link.shape[-1], dtype=torch.bool, device=link.device), 0)
    last = torch.addcmul(written, 1 - written.sum(-1, keepdim=True), last)
    return link, [link.flatten(1), last]
