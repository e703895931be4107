"""RWKV-5, Eagle."""

from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.heads import divide
from recurra.parts.lerp import TokenShift, fading, looking_back, place, present
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor


class RWKV5(Mixer):
    r"""A matrix memory whose key channels each fade at their own learned rate, with a bonus for the present step.

    .. math::
        o_t = (S_{t-1} + \operatorname{diag}(u)\, k_t v_t^\top)^\top r_t \qquad
        S_t = \operatorname{diag}(e^{-e^{\omega}})\, S_{t-1} + k_t v_t^\top \qquad
        y_t = W_o \bigl(\operatorname{norm}(o_t) \odot \operatorname{silu}(g_t)\bigr)

    where r, k, v and g are linear, each in its own blend of x and the x before it,
    :math:`x_t + \mu \odot (x_{t-1} - x_t)`, and norm is a group norm of each head with epsilon 64e-5, as the authors'
    code has it, which divides by 8 first. Eagle, Peng et al. 2024, https://arxiv.org/abs/2404.05892. The paper's block
    is this and then `channel_mix`: the pattern "rwkv5,channel_mix" with no other MLP. Unlike the authors' code
    :math:`\mu` is the share of the step before, theirs is one less it, heads are counted, not fixed at 64 features
    each, and no projection starts at zero.
    State: the last x, `(B, D)`, and the memory S, `(B, H, K, K)` with K = width / heads; float32.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        layer: which layer of the stack this is, from 0: sets where decays, bonus and blends start.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, or `layer` is not one of `depth`.
    """

    undecayed = ("shift.share", "log_rate", "bonus")

    def __init__(self, width: int, *, heads: int = 4, layer: int = 0, depth: int = 1) -> None:
        super().__init__()
        up, left = place(layer, depth)
        self.heads, self.size = heads, divide(width, heads)
        even, half = looking_back(width, left), looking_back(width, left / 2)
        self.shift = TokenShift(half, even, looking_back(width, left, 0.3 * up), half)
        projections = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.receptance, self.key, self.value, self.gate, self.out = projections
        self.log_rate = nn.Parameter(fading(width, -6.0, 5.0, up).view(heads, -1))
        self.bonus = nn.Parameter(present(width, up).view(heads, -1))
        self.norm = HeadNorm(width, heads, bias=True, epsilon=64e-5)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        memory = self.zeros(batch, self.heads, self.size, self.size)
        return self.zeros(batch, self.out.in_features), memory

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, memory = state
        blends, past = self.shift(x, past, clock)
        projections = (self.receptance, self.key, self.value, self.gate)
        *parts, gate = (project(blend) for project, blend in zip(projections, blends, strict=True))
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        log_decay = -self.log_rate.to(memory.dtype).exp().expand(*query.shape)
        read, memory = self.scan(Outer(query, key, value, log_decay, True, self.bonus), memory, clock)
        return self.out(self.norm.gated(read.flatten(-2), gate)), (past, memory)
