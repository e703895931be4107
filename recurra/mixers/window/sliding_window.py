"""Attention over the last few steps, whose state is a window that never grows."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.heads import divide
from recurra.parts.rotary import count
from recurra.parts.window import attend_near, rotary, slide
from recurra.shapes import Float, State, Tensor


class SlidingWindow(Mixer):
    r"""Every step looks at itself and the steps just before it, and older ones are let go.

    .. math::
        y_t = W_o \sum_{t - W < j \le t} p_{tj} v_j
        \qquad
        p_{t\cdot} = \operatorname{softmax}_j\bigl((R_t q_t)^\top R_j k_j / \sqrt{K}\bigr)

    with queries, keys and values of every head linear in x and rotated by their positions R, Jiang et al. 2023,
    https://arxiv.org/abs/2310.06825. Unlike the paper, every head has keys and values of its own. State: the keys and
    values of the last W - 1 steps `(B, W-1, H, K)`, float32, oldest first and zeros before the sequence's own, and
    how many steps the sequence has had, `(B,)`.

    Args:
        width: features in and out (D).
        window: steps seen, the present one included (W).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, or `window` is less than 1.
    """

    def __init__(self, width: int, *, window: int = 128, heads: int = 4, base: float = 10000.0) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window}: a step sees at least itself, so it must be 1 or more")
        self.heads, self.size = heads, 2 * divide(width, 2 * heads, among="twice heads")
        self.window, self.base = window, base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def initial_state(self, batch: int) -> State:
        empty = self.zeros(batch, self.window - 1, self.heads, self.size)
        return empty, empty, torch.zeros(batch, dtype=torch.long, device=empty.device)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        positions, counted = count(state[2], x.shape[1], clock)
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        query, key = rotary(query, key, positions, self.base)
        keys, values, sequence, state = slide(key, value, state, counted, clock)
        read = attend_near(query, keys, values, sequence, self.window)
        return self.out(read.flatten(-2)), state
