"""The differentiable neural computer."""

import functools

import torch
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.controller import Controller, Memory, look_up
from recurra.shapes import Float, Tensor

# as in the authors' code, the least that a slot is used: a product of usages has a gradient
LEAST = 1e-6


class DNC(Mixer):
    r"""A recurrent network with a memory that it allocates, frees, and reads again in the order it was written.

    .. math::
        \xi_t = W_\xi h_t + b_\xi \qquad h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad
        y_t = W_y [h_t; r_t]

    where :math:`\xi` holds keys k, strengths :math:`\beta`, 1 and a softplus, free gates f, an allocation gate
    :math:`g^a`, a write gate :math:`g^w` and e, all by sigmoids, v, and read modes :math:`\pi` by softmax. Slots are
    used as they were written and not freed, and those used least, :math:`\phi` of them in order, are allocated:

    .. math::
        u_t = (u_{t-1} + w_{t-1} - u_{t-1} \odot w_{t-1}) \odot \prod_i (1 - f^i w^{r,i}_{t-1}) \qquad
        a_{\phi_j} = (1 - u_{\phi_j}) \prod_{i < j} u_{\phi_i}

    .. math::
        w_t = g^w \big( g^a a + (1 - g^a)\, \operatorname{softmax}(\beta \cos(k, M_{t-1})) \big) \qquad
        M_t = M_{t-1} \odot (1 - w_t e^\top) + w_t v^\top

    Links say which slot was written after which, and heads read along them, back, or by content:

    .. math::
        L_{ij} \leftarrow (1 - w_i - w_j) L_{ij} + w_i\, p_j, \; L_{ii} = 0 \qquad
        p \leftarrow \Big( 1 - \sum_i w_i \Big) p + w

    .. math::
        w^r_t = \pi_1 L^\top w^r_{t-1} + \pi_2 \operatorname{softmax}(\beta^r \cos(k^r, M_t)) + \pi_3 L w^r_{t-1} \qquad
        r_t = M_t^\top w^r_t

    Graves et al. 2016, https://doi.org/10.1038/nature20101. As in the authors' code (https://github.com/google-deepmind
    /dnc) usage is at least :math:`10^{-6}` where slots are allocated; unlike it the controller's output is not clipped.
    Where slots are used alike, to :math:`10^{-6}`, the first is allocated: theirs lets a rounding decide. No form of
    this runs all steps at once: it goes one by one.

    State: (h, c, r, M, u, w, :math:`w^r`, L, p): `(B, D)` twice, `(B, heads * size)`, `(B, slots * size)`, `(B, slots)`
    twice, `(B, heads * slots)`, `(B, slots * slots)`, `(B, slots)`; without links the last two are not there; float32.

    Args:
        width: features in and out, and units of the controller (D).
        slots: of the memory (N); with links a step costs their square.
        size: numbers in a slot.
        heads: how many heads read.
        links: whether slots are linked in the order of writing; without, heads read by content alone.

    Raises:
        ValueError: `slots`, `size` or `heads` is less than 1.
    """

    undecayed = ("controller.interface.bias",)

    def __init__(self, width: int, *, slots: int = 16, size: int = 16, heads: int = 1, links: bool = True) -> None:
        super().__init__()
        at_least(1, slots=slots, size=size, heads=heads)
        of_head = size + 2 + (3 if links else 0)
        chain = (slots * slots, slots) if links else ()
        access = functools.partial(_access, slots=slots, size=size, heads=heads)
        self.controller = Controller(
            "dnc", access, width,
            interface=heads * of_head + 3 * size + 3,
            read=heads * size,
            memory=(slots * size, slots, slots, heads * slots, *chain),
        )  # fmt: skip

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        return self.controller.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        return self.controller(x, state, clock)


def allocation(usage: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """How much of each slot is free to be written: all of the one used least, of others what those before leave."""
    # in steps of the least, so that a rounding does not decide between slots used alike
    order = (usage.detach() / LEAST).round().argsort(stable=True, dim=-1)
    used = (LEAST + (1 - LEAST) * usage).gather(-1, order)
    before = F.pad(used.cumprod(-1)[:, :-1], (1, 0), value=1.0)
    return torch.empty_like(used).scatter(1, order, (1 - used) * before)


def _access(
    interface: Float[Tensor, "B I"], state: Memory, *, slots: int, size: int, heads: int
) -> tuple[Float[Tensor, "B R"], Memory]:
    """Free, allocate, write, link, read."""
    flat, usage, written, looked, *chain = state
    memory, looked = flat.unflatten(-1, (slots, size)), looked.unflatten(-1, (heads, slots))
    of_heads = interface.shape[-1] - 3 * size - 3
    key, value, erase, strength, allocate, write, say = interface.split([size] * 3 + [1] * 3 + [of_heads], -1)
    keys, strengths, free, *modes = say.unflatten(-1, (heads, -1)).split([size, 1, 1] + [3] * bool(chain), -1)
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
        link, chain = _link(chain[0].unflatten(-1, (slots, slots)), chain[1], written)
        back, content, on = F.softmax(modes[0], -1).split(1, -1)
        found = torch.addcmul(content * found, back, looked @ link)
        found = torch.addcmul(found, on, looked @ link.mT)
    return (found @ memory).flatten(1), (memory.flatten(1), usage, written, found.flatten(1), *chain)


def _link(
    link: Float[Tensor, "B N N"], last: Float[Tensor, "B N"], written: Float[Tensor, "B N"]
) -> tuple[Float[Tensor, "B N N"], list[Tensor]]:
    """What is written now comes after what was written last."""
    to = written[..., None]
    link = torch.addcmul((1 - to - to.mT) * link, to, last[:, None])
    link = link.masked_fill(torch.eye(link.shape[-1], dtype=torch.bool, device=link.device), 0)
    last = torch.addcmul(written, 1 - written.sum(-1, keepdim=True), last)
    return link, [link.flatten(1), last]
