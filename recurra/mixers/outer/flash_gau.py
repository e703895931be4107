"""FLASH: gated attention that is exact inside a group of steps, and linear in all the groups before."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.segment import Open, as_kept, none_open, through
from recurra.parts.window import by_age
from recurra.shapes import Float, Int, Tensor

Memory = Float[Tensor, "_ K V"]


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

    State: (M, (kept, past)): the linear memory of the groups before, `(B, K, V)`; z and v of the present group's steps
    `(B, G-1, K + V)`, zeros after the last, and how many they are, `(B,)`; float32 (float64 if the parameters are) and
    int64, V = expand * width.

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

    def initial_state(self, batch: int) -> tuple[Memory, Open]:
        """Nothing remembered, no steps: zeros."""
        values, _, size = self.splits
        return self.zeros(batch, size, values), none_open(self.zeros(batch, self.group - 1, size + values))

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Memory, Open], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Memory, Open]]:
        """Project, remember every full group, then read group and memory for all steps at once, gate."""
        value, gate, shared = F.silu(self.project(x)).split(self.splits, -1)
        kept = torch.cat([shared, value], -1).to(state[0].dtype)
        shared, start = shared.to(kept.dtype), self.initial_state(len(x))
        read, state = through(as_kept, self._write, self._read, shared, kept, state, start, clock)
        return self.out((gate * read).to(x.dtype)), state

    def _write(self, memory: Memory, kept: Float[Tensor, "B C F"]) -> Memory:
        """The memory after a group."""
        shared, value = kept.tensor_split([memory.shape[1]], -1)
        # autocast would send sums through bfloat16
        with torch.autocast(kept.device.type, enabled=False):
            return torch.baddbmm(memory, (shared * self.scale[1, 1] + self.offset[1, 1]).mT, value)

    def _read(
        self, memory: Memory, shared: Float[Tensor, "N Q K"], kept: Float[Tensor, "N C F"], place: Int[Tensor, "_ Q"]
    ) -> Float[Tensor, "N Q V"]:
        """What steps find in their group, and in the memory of those before."""
        near, far = (shared[..., None, :] * (self.scale[0] / self.group) + self.offset[0] / self.group).unbind(-2)
        key, value = kept.tensor_split([memory.shape[1]], -1)
        bias = by_age(self.near.to(near.dtype), place)
        with torch.autocast(kept.device.type, enabled=False):
            weight = F.relu(torch.baddbmm(bias, near, (key * self.scale[1, 0] + self.offset[1, 0]).mT)).square()
            return torch.baddbmm(far @ memory, weight, value)
