"""RWKV-6, Finch."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.parts.heads import divide
from recurra.parts.lerp import blend, fading, looking_back, place, present
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor


def _blends(x: Tensor, before: Tensor, *shares: Tensor) -> tuple[Tensor, ...]:
    """By five shares that are given and five that the input chose."""
    change = before - x
    return tuple(x + (share + more) * change for share, more in zip(shares[:5], shares[5:], strict=True))


def _fall(x: Tensor) -> Tensor:
    return -x.exp()


BLENDS, FALL = Map("chosen_blends", _blends, 5), Map("fall", _fall)


class RWKV6(Mixer):
    r"""A matrix memory that fades key by key as the input asks, fed by blends of two steps that the input chooses too.

    .. math::
        o_t = (S_{t-1} + \operatorname{diag}(u)\, k_t v_t^\top)^\top r_t \qquad
        S_t = \operatorname{diag}(e^{-e^{\omega_t}})\, S_{t-1} + k_t v_t^\top \qquad
        y_t = W_o \bigl(\operatorname{norm}(o_t) \odot \operatorname{silu}(g_t)\bigr)
    .. math::
        \omega_t = \omega + B_\omega \tanh(A_\omega x^{(\omega)}_t) \qquad
        x^{(i)}_t = x_t + \bigl(\mu_i + B_i \tanh(A_i\, (x_t + \mu_x \odot \delta_t))\bigr) \odot \delta_t \qquad
        \delta_t = x_{t-1} - x_t

    where r, k, v and g are linear, each in its own blend :math:`x^{(i)}`, and norm is a group norm of each head with
    epsilon 64e-5. Finch, Peng et al. 2024, https://arxiv.org/abs/2404.05892. The paper's block is this and then
    `channel_mix`: the pattern "rwkv6,channel_mix" with no other MLP. Unlike the authors' code heads are counted, not
    fixed at 64 features each, and no square projection starts at zero.
    State: the last x, `(B, D)`, and the memory S, `(B, H, K, K)` with K = width / heads; float32.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        rank: of the maps that choose the blends, A_i and B_i.
        decay_rank: of the map that chooses the decay.
        layer: which layer of the stack this is, from 0: sets where decays, bonus and blends start.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, or `layer` is not one of `depth`.
    """

    undecayed = ("share", "bonus")

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        rank: int = 32,
        decay_rank: int = 64,
        layer: int = 0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        up, left = place(layer, depth)
        self.heads, self.size = heads, divide(width, heads)
        even, half = looking_back(width, left), looking_back(width, left / 2)
        # what chooses, then decay, key, value, receptance, gate
        self.share = nn.Parameter(torch.stack([even, even, even, looking_back(width, left, 0.3 * up), half, half]))
        self.choose_in = nn.Linear(width, 5 * rank, bias=False)
        self.choose_out = nn.Parameter(torch.empty(5, width, rank).uniform_(-0.01, 0.01))
        self.decay_in = nn.Linear(width, decay_rank, bias=False)
        self.decay_out = nn.Linear(decay_rank, width)
        projections = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.key, self.value, self.receptance, self.gate, self.out = projections
        self.bonus = nn.Parameter(present(width, up).view(heads, -1))
        self.norm = HeadNorm(width, heads, bias=True, epsilon=64e-5)
        self.scan = Scan()
        nn.init.zeros_(self.choose_in.weight)
        nn.init.zeros_(self.decay_in.weight)
        nn.init.uniform_(self.decay_out.weight, -0.01, 0.01)
        with torch.no_grad():
            self.decay_out.bias.copy_(fading(width, -6.0, 5.0, up))

    def initial_state(self, batch: int) -> State:
        memory = self.zeros(batch, self.heads, self.size, self.size)
        return self.zeros(batch, self.out.in_features), memory

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, memory = state
        before, past = shift(x, past, clock)
        first, *shares = self.share.unbind(0)
        (first,) = blend(x, before, first)
        chosen = self.choose_in(first).tanh().unflatten(-1, (5, -1))
        chosen = torch.einsum("ndr,btnr->nbtd", self.choose_out, chosen)
        decay, *blends = pointwise(BLENDS, x, before, *shares, *chosen.unbind(0))
        projections = (self.key, self.value, self.receptance, self.gate)
        *parts, gate = (project(blend) for project, blend in zip(projections, blends, strict=True))
        key, value, query = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        log_decay = pointwise(FALL, self.decay_out(self.decay_in(decay).tanh()).to(memory.dtype))
        record = Outer(query, key, value, log_decay.unflatten(-1, (self.heads, -1)), True, self.bonus)
        read, memory = self.scan(record, memory, clock)
        return self.out(self.norm.gated(read.flatten(-2), gate)), (past, memory)
