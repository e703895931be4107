"""Gated slot attention: attention over a fixed number of slots, which are written and fade by one gate."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.heads import divide
from recurra.parts.norms import RMSNorm
from recurra.parts.slots import SlotState, attend_slots, fade
from recurra.shapes import Float, Tensor


def _swishes(*parts: Tensor) -> tuple[Tensor, ...]:
    return tuple(F.silu(part) for part in parts)


def _rate(forget: Tensor, temperature: float) -> Tensor:
    """Minus the logarithm of what a slot keeps."""
    return F.softplus(-forget) / temperature


SWISHES = Map("swishes", _swishes, 3)


class GSA(Mixer):
    r"""Softmax attention over M slots of memory instead of all steps; every slot forgets as much as it takes in.

    .. math::
        \tilde K_t = \operatorname{diag}(\alpha_t)\, \tilde K_{t-1} + (1 - \alpha_t)\, k_t^\top \qquad
        \tilde V_t = \operatorname{diag}(\alpha_t)\, \tilde V_{t-1} + (1 - \alpha_t)\, v_t^\top

    .. math::
        o_t = \tilde V_t^\top \operatorname{softmax}(\tilde K_t q_t) \qquad
        y_t = W_o \operatorname{norm}(\operatorname{swish}(o_t)) \qquad
        \alpha_t = \sigma(W_\alpha x_t)^{1/\tau}

    with q, k, v linear in x, then swish; one :math:`\alpha` a slot; norm an RMSNorm over all heads together. Source:
    Zhang et al. 2024 (gated slot attention), https://arxiv.org/abs/2409.07146. As in the authors' code. Its
    ungated forerunner is `abc`.

    State: the slots' keys, `(B, H, M, K)`, and their values, `(B, H, M, V)`, float32 (float64 if the parameters are),
    K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: that attend each by itself (H); divides `width`.
        slots: of each head (M); None: as many as a key has features.
        temperature: :math:`\tau`; the larger, the longer a slot remembers.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 4, slots: int | None = None, temperature: float = 8.0) -> None:
        super().__init__()
        self.heads, self.size, self.temperature = heads, divide(width, heads), temperature
        self.slots = self.size if slots is None else slots
        self.project = nn.Linear(width, 3 * width + heads * self.slots, bias=False)
        self.norm = RMSNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        self.address, self.content = Scan(), Scan()

    def initial_state(self, batch: int) -> SlotState:
        """Empty slots: zeros."""
        keys, values = (self.zeros(batch, self.heads, self.slots, self.size) for _ in range(2))
        return keys, values

    def mix(self, x: Float[Tensor, "B T D"], state: SlotState, clock: Clock | None) -> tuple[Tensor, SlotState]:
        """Project, look for slots, read them, normalise."""
        *mixed, forget = self.project(x).split([*3 * [x.shape[-1]], self.heads * self.slots], -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in pointwise(SWISHES, *mixed))
        forget = forget.unflatten(-1, (self.heads, self.slots)).to(state[0].dtype)
        rate = pointwise(Map("gsa_rate", _rate, constants=(self.temperature,)), forget)
        read, state = attend_slots(self.address, self.content, query, key, value, *fade(rate), state, clock)
        return self.out(self.norm(F.silu(read.flatten(-2)))), state
