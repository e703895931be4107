"""Gated DeltaNet: the delta rule, to correct one thing, with a decay, to let all of it go."""

from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.delta import Fading, check_strength, correction, size_of
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

DeltaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K V"]]


class GatedDeltaNet(Mixer):
    r"""A memory that fades as a whole, as the input asks, and is corrected key by key.

    .. math::
        S_t = \alpha_t S_{t-1} + \beta_t k_t (v_t - \alpha_t S_{t-1}^\top k_t)^\top \qquad
        y_t = W_o \bigl(\operatorname{norm}(K^{-1/2} S_t^\top q_t) \odot \operatorname{swish}(W_g x_t)\bigr)

    .. math::
        \alpha_t = \exp(-e^{a} \operatorname{softplus}(W_\alpha x_t + b)) \qquad
        \beta_t = s\, \sigma(W_\beta x_t)

    with q, k, v linear in x, then a short convolution with SiLU; q and k of length one (1e-6 inside the root); one
    :math:`\alpha` and :math:`\beta` a head, of which a and b are the head's own; norm an RMSNorm of each head.
    Source: Yang et al. 2025 (gated delta networks), https://arxiv.org/abs/2412.06464. As in the paper; there keys
    take 3/4 of the width, here all of it unless `head_size` says otherwise.

    State: the convolution's past, `(B, conv_size - 1, heads * (2 K + V))`, and the memory S, `(B, H, K, V)` with
    V = expand K; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H).
        head_size: features of a key (K); None: width / heads.
        expand: values are this many times as wide as keys.
        strength: s, in (0, 2], the most that one step replaces of what its key recalls. 1 as in the paper; above 1
            a step may flip its sign, with which it can count modulo 2 (Grazzi et al. 2024,
            https://arxiv.org/abs/2411.12537).
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: there is no `head_size` and `heads` does not divide `width`, or `strength` is outside (0, 2].
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        expand: int = 2,
        strength: float = 1.0,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.heads, self.size, self.strength = heads, size_of(width, heads, head_size), check_strength(strength)
        keys, values = heads * self.size, expand * heads * self.size
        self.mixed = [keys, keys, values]
        self.splits = [sum(self.mixed), values, heads, heads]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.conv = ShortConvolution(sum(self.mixed), size=conv_size, bias=False)
        self.fading = Fading(heads)
        self.norm = RMSNorm(values // heads)
        self.out = nn.Linear(values, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> DeltaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, len(self.norm.weight))

    def mix(self, x: Float[Tensor, "B T D"], state: DeltaState, clock: Clock | None) -> tuple[Tensor, DeltaState]:
        """Project, convolve, fade and correct the memory, normalise, then gate."""
        past, memory = state
        mixed, gate, write, forget = self.project(x).split(self.splits, -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed, -1))
        write = self.strength * write.to(memory.dtype).sigmoid()
        read, memory = self.scan(correction(query, key, value, write, self.fading(forget)), memory, clock)
        return self.out(self.norm.gated(read, gate)), (past, memory)
