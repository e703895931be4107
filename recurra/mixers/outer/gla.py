"""Gated linear attention: a memory that forgets key by key, as the input asks."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor


class GLA(Mixer):
    r"""Linear attention whose memory forgets, key by key, as the input asks.

    .. math::
        S_t = \operatorname{diag}(\alpha_t)\, S_{t-1} + k_t v_t^\top \qquad
        y_t = W_o \bigl(\operatorname{norm}(K^{-1/2} S_t^\top q_t) \odot \operatorname{swish}(W_g x_t)\bigr) \qquad
        \alpha_t = \sigma(W_2 W_1 x_t + b)^{1/\tau}

    with q, k, v linear in x and norm an RMSNorm of each head. Source: Yang et al. 2024 (gated linear attention),
    https://arxiv.org/abs/2312.06635. As in the paper; queries and keys together are as wide as x.

    State: the memory S, `(B, H, K, V)`, float32 (float64 if the parameters are), K = width / (2 heads) and
    V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); `width` is a multiple of twice that.
        rank: of the forget gate's projection, W_1 and W_2.
        temperature: :math:`\tau`; the larger, the longer it remembers.

    Raises:
        ValueError: `width` is not a multiple of `2 * heads`.
    """

    def __init__(self, width: int, *, heads: int = 4, rank: int = 16, temperature: float = 16.0) -> None:
        super().__init__()
        self.heads, self.size, self.temperature = heads, 2 * divide(width, 2 * heads, among="twice heads"), temperature
        self.splits = [width // 2, width // 2, width, width, rank]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.forget = nn.Linear(rank, width // 2)
        self.norm = RMSNorm(self.size)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        return self.zeros(batch, self.heads, self.size // 2, self.size)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Project, remember, normalise, then gate."""
        *parts, gate, forget = self.project(x).split(self.splits, -1)
        parts.append(self.forget(forget))
        query, key, value, forget = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        query = query * query.shape[-1] ** -0.5
        log_decay = F.logsigmoid(forget.to(state.dtype)) / self.temperature
        read, state = self.scan(Outer(query, key, value, log_decay), state, clock)
        return self.out(self.norm.gated(read, gate)), state
