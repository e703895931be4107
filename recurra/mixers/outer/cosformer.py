"""cosFormer: linear attention that prefers what is near, by a cosine of the distance, which also factorises."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.exponential import mean_of
from recurra.parts.heads import divide
from recurra.parts.rotary import count
from recurra.shapes import Float, Int, Tensor


class CosFormer(Mixer):
    r"""Linear attention in which a step counts the less the further back it lies: a quarter of a cosine over M steps.

    .. math::
        y_t = W_o \frac{\sum_{j \le t} w_{tj} v_j}{\max(\sum_{j \le t} w_{tj},\, \epsilon)} \qquad
        w_{tj} = \operatorname{relu}(q_t)^\top \operatorname{relu}(k_j) \cos\Bigl(\frac{\pi}{2} \frac{t - j}{M}\Bigr)

    with q, k, v linear in x; as :math:`\cos(a - b) = \cos a \cos b + \sin a \sin b`, the sums are two memories side by
    side. Source: Qin et al. 2022 (cosFormer), https://arxiv.org/abs/2202.08791. As in the authors' code; but M is
    given, not the length of what is seen: without that a step would change when later ones come. Beyond M the cosine
    would weigh with the wrong sign, so a sequence of more than M steps is refused.

    State: the memory and the sum of its keys side by side, `(B, H, 2 K, V + 1)`, float32 (float64 if the parameters
    are), K = V = width / heads, sines first; and the position of the next step, `(B,)`, int64.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        length: most steps of a sequence (M).

    Raises:
        ValueError: `heads` does not divide `width`, `length` is less than 1, or a sequence is longer than it.
    """

    def __init__(self, width: int, *, heads: int = 4, length: int = 65536) -> None:
        super().__init__()
        at_least(1, length=length)
        self.heads, self.size, self.length, self.epsilon = heads, divide(width, heads), length, 1e-6
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]]:
        """Nothing remembered, at position zero."""
        memory = self.zeros(batch, self.heads, 2 * self.size, self.size + 1)
        return memory, torch.zeros(batch, dtype=torch.int64, device=memory.device)

    def mix(
        self,
        x: Float[Tensor, "B T D"],
        state: tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]],
        clock: Clock | None,
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]]]:
        """Project, turn, remember, and divide what is read by the sum of its weights."""
        memory, start = state
        positions, position = count(start, x.shape[1], clock)
        happened = positions if clock is None or clock.valid is None else positions[clock.valid]
        if bool((happened >= self.length).any()):
            raise ValueError(f"a sequence is longer than length, which is {self.length}: give CosFormer a larger one")
        angles = positions[..., None, None].double() * (0.5 * math.pi / self.length)
        sine, cosine = angles.sin().to(memory.dtype), angles.cos().to(memory.dtype)
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, self.size)).unbind(2)
        query, key = (torch.cat([part * sine, part * cosine], -1) for part in (F.relu(query), F.relu(key)))
        # a value of one beside the others sums the keys: numerator and denominator are one memory
        value = F.pad(value.to(memory.dtype), (0, 1), value=1.0)
        read, memory = self.scan(Outer(query, key, value), memory, clock)
        return self.out(mean_of(read, self.epsilon).flatten(-2).to(x.dtype)), (memory, position)
