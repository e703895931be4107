"""DeltaNet: a matrix memory that, before it writes under a key, takes away what the key already recalls."""

from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.delta import check_strength, correction
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

DeltaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K V"]]


class DeltaNet(Mixer):
    r"""A memory that learns as it reads: what a key recalls is moved towards the value, by the delta rule.

    .. math::
        S_t = S_{t-1} + \beta_t k_t (v_t - S_{t-1}^\top k_t)^\top \qquad
        y_t = W_o \operatorname{norm}(K^{-1/2} S_t^\top q_t) \qquad
        \beta_t = s\, \sigma(W_\beta x_t)

    with q, k, v linear in x, then a short convolution with SiLU; q and k of length one (1e-6 inside the root); one
    :math:`\beta` a head; norm an RMSNorm of each head. Source: Schlag et al. 2021, https://arxiv.org/abs/2102.11174,
    in the form of Yang et al. 2024, https://arxiv.org/abs/2406.06484.

    State: the convolution's past, `(B, conv_size - 1, 3 * width)`, and the memory S, `(B, H, K, V)` with
    K = V = width / heads; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        strength: s, in (0, 2], the most that one step replaces of what its key recalls. 1 as in the papers; above 1
            a step may flip its sign, with which it can count modulo 2 (Grazzi et al. 2024,
            https://arxiv.org/abs/2411.12537).
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`, or `strength` is outside (0, 2].
    """

    def __init__(self, width: int, *, heads: int = 4, strength: float = 1.0, conv_size: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.strength = heads, divide(width, heads), check_strength(strength)
        self.project = nn.Linear(width, 3 * width + heads, bias=False)
        self.conv = ShortConvolution(3 * width, size=conv_size, bias=False)
        self.norm = RMSNorm(self.size)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> DeltaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, self.size)

    def mix(self, x: Float[Tensor, "B T D"], state: DeltaState, clock: Clock | None) -> tuple[Tensor, DeltaState]:
        """Project, convolve, correct the memory, normalise what is read."""
        past, memory = state
        mixed, write = self.project(x).split([3 * x.shape[-1], self.heads], -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key, value = mixed.unflatten(-1, (3, self.heads, self.size)).unbind(2)
        write = self.strength * write.to(memory.dtype).sigmoid()
        read, memory = self.scan(correction(query, key, value, write), memory, clock)
        return self.out(self.norm(read).flatten(-2).to(x.dtype)), (past, memory)
