"""Full causal attention: the baseline whose state grows."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.heads import divide
from recurra.parts.kept import attend_kept
from recurra.parts.rotary import count
from recurra.parts.window import rotary
from recurra.shapes import Float, State, Tensor


class Attention(Mixer):
    r"""Every step looks back at all steps of its sequence, which must therefore all be kept.

    .. math::
        y_t = W_o \sum_{j \le t} p_{tj} v_j
        \qquad
        p_{t\cdot} = \operatorname{softmax}_j\bigl((R_t q_t)^\top R_j k_j / \sqrt{K}\bigr)

    with queries, keys and values of every head linear in x, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
    Unlike the paper, positions are rotations R of queries and keys (Su et al. 2021,
    https://arxiv.org/abs/2104.09864), and the maps have no biases. State: keys and values `(B, S, H, K)`, float32,
    each row's own first and zeros after them, and how many are a row's own, `(B,)`. S is the most that any row has: it
    grows with the sequence, and a reset lets go of a row's past.

    Args:
        width: features in and out (D).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts.
    """

    grows = True

    def __init__(self, width: int, *, heads: int = 4, base: float = 10000.0) -> None:
        super().__init__()
        self.heads, self.size, self.base = heads, 2 * divide(width, 2 * heads, among="twice heads"), base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def initial_state(self, batch: int) -> State:
        nothing = self.zeros(batch, 0, self.heads, self.size)
        return nothing, nothing, torch.zeros(batch, dtype=torch.long, device=nothing.device)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        positions, counted = count(state[2], x.shape[1], clock)
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        query, key = rotary(query, key, positions, self.base)
        read, state = attend_kept(query, key, value, state, counted, clock)
        return self.out(read.flatten(-2)), state
