"""FLASH: gated attention that is exact inside a group of steps, and linear in all the groups before."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.rotary import count
from recurra.parts.window import blocks, happened, segments, take
from recurra.shapes import Float, Int, Tensor

FlashState = tuple[Float[Tensor, "B 1 K V"], Float[Tensor, "B S 2 K"], Float[Tensor, "B S 1 V"], Int[Tensor, " B"]]


class FlashGAU(Mixer):
    r"""One wide head that gates what it reads: every pair inside a group of G steps, and one matrix of all before it.

    .. math::
        y_t = W_o \Bigl(u_t \odot \Bigl[
        \sum_{j \le t,\; g(j) = g(t)} \operatorname{relu}\bigl(q_t^\top k_j / G + w_{t-j}\bigr)^2 v_j
        + \sum_{g(j) < g(t)} (\tilde q_t^\top \tilde k_j / G)\, v_j \Bigr]\Bigr)

    with :math:`g(t) = \lfloor t / G \rfloor`; u and v linear in x, then SiLU; and q, k, :math:`\tilde q, \tilde k` one
    vector z, linear in x, then SiLU, each scaled and shifted by channels of its own. Source: Hua et al. 2022
    (transformer quality in linear time), https://arxiv.org/abs/2202.10447, its causal form. Unlike the paper, what
    surrounds it (norm, residual, positions added to the input) is a block's. A group begins where its sequence says,
    not where a batch is cut.

    State: the linear memory of all steps, `(B, 1, K, V)`; the keys of both kinds `(B, G-1, 2, K)` and the values
    `(B, G-1, 1, V)` of the present group's steps, last ones last and zeros before them; float32 (float64 if the
    parameters are), V = expand * width; and the position of the next step, `(B,)`, int64.

    Args:
        width: features in and out (D).
        group: steps of a group (G).
        size: features of queries and keys (K).
        expand: values are this many times as wide as x.

    Raises:
        ValueError: a size is less than 1.
    """

    undecayed = ("scale", "offset")

    def __init__(self, width: int, *, group: int = 256, size: int = 128, expand: int = 2) -> None:
        super().__init__()
        at_least(1, group=group, size=size, expand=expand)
        self.group = group
        self.splits = [expand * width, expand * width, size]
        self.project = nn.Linear(width, sum(self.splits))
        # queries, then keys: of the exact and of the linear kind
        self.scale = nn.Parameter(0.02 * torch.randn(2, 2, size))
        self.offset = nn.Parameter(torch.zeros(2, 2, size))
        self.near = nn.Parameter(0.02 * torch.randn(group))
        self.out = nn.Linear(expand * width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> FlashState:
        """Nothing remembered, at position zero."""
        values, _, size = self.splits
        keys, kept = self.zeros(batch, self.group - 1, 2, size), self.zeros(batch, self.group - 1, 1, values)
        position = torch.zeros(batch, dtype=torch.int64, device=kept.device)
        return self.zeros(batch, 1, size, values), keys, kept, position

    def mix(self, x: Float[Tensor, "B T D"], state: FlashState, clock: Clock | None) -> tuple[Tensor, FlashState]:
        """Project, read the group and all steps, take the group from the latter, gate."""
        memory, keys, values, past = state
        kept, steps = keys.shape[1], x.shape[1]
        value, gate, shared = F.silu(self.project(x)).split(self.splits, -1)
        shared = shared.to(memory.dtype)[:, :, None, None]
        query, key = (shared * self.scale + self.offset).unbind(2)
        value = value.to(memory.dtype)[:, :, None]
        keys, values = torch.cat([keys, key], 1), torch.cat([values, value], 1)
        positions, position = count(past, steps, clock)
        index = torch.arange(kept, device=x.device)
        live = index >= kept - (past % self.group)[:, None]
        segment = segments(live, steps, Clock(reset=positions % self.group == 0))
        read, memory = self.scan(Outer(query[:, :, 1:], key[:, :, 1:] / self.group, value), memory, clock)
        read = (read + self._group(query, keys, values, segment)).flatten(-2)
        live = index >= kept - (position % self.group)[:, None]
        index = index + happened(past, steps, clock)[:, None]
        state = memory, take(keys, index, live), take(values, index, live), position
        return self.out((gate * read).to(x.dtype)), state

    def _group(
        self,
        query: Float[Tensor, "B T 2 K"],
        keys: Float[Tensor, "B L 2 K"],
        values: Float[Tensor, "B L 1 V"],
        segment: Int[Tensor, "B L"],
    ) -> Float[Tensor, "B T 1 V"]:
        """What a group's own steps add, less what the memory of all steps says of them."""
        batch, steps = query.shape[:2]
        query, keys, values, seen, age = blocks(query, keys, values, segment, self.group)
        exact, linear = torch.einsum("nchk,nrhk->hncr", query, keys) / self.group
        near = self.near.to(exact.dtype)[age.clamp(0, self.group - 1)]
        weights = (F.relu(exact + near).square() - linear).masked_fill(~seen, 0)
        read = torch.einsum("ncr,nrgv->ncgv", weights, values)
        return read.unflatten(0, (batch, -1)).flatten(1, 2)[:, :steps]
