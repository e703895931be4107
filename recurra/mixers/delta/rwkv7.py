"""RWKV-7, Goose."""

import math

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import LowRank, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.delta import check_strength
from recurra.parts.heads import divide
from recurra.parts.lerp import TokenShift, looking_back, place
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor


def _square(key: Tensor, rate: Tensor, decay: Tensor, removal: Tensor, replacement: Tensor) -> tuple[Tensor]:
    return ((key * removal).square(),)


def _learn(
    key: Tensor,
    rate: Tensor,
    decay: Tensor,
    removal: Tensor,
    replacement: Tensor,
    squares: Tensor,
    count: Tensor | int,
    strength: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is written, what is removed, at which rate, and how the rest fades."""
    rate, log_decay = rate.sigmoid(), -math.exp(-0.5) * decay.sigmoid()
    written = key * (1 + (rate - 1) * replacement)
    removed = key * removal * (squares + 1e-6).rsqrt()
    if strength != 1:
        rate = rate * (1 + (strength - 1) * log_decay.exp())
    return written, removed, -rate * removed, log_decay


def _moments(
    query: Tensor, key: Tensor, value: Tensor, read: Tensor, gate: Tensor, first: Tensor, *shares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x = read - first
    return query * key * shares[-1], x, x * x


def _answer(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    read: Tensor,
    gate: Tensor,
    first: Tensor,
    weight: Tensor,
    bias: Tensor,
    bonus: Tensor,
    agreement: Tensor,
    total: Tensor,
    squares: Tensor,
    count: Tensor | int,
    epsilon: float,
) -> Tensor:
    """What was read, normalised, and of the present value as much as query and key agree, then gated. Moments are of
    what was read as it is from its first feature: no mean is far from there, so that the variance keeps its digits."""
    mean = total / count
    normal = (read - first - mean) * (squares / count - mean * mean + epsilon).rsqrt()
    return (normal * weight + bias + agreement * value) * gate


def _narrow(width: int, rank: int, between: nn.Module, start: Float[Tensor, " D"] | None) -> nn.Sequential:
    """Through a few features and back: W_2 f(W_1 x) + b, at the start b whatever x is; None: no b."""
    into, back = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=start is not None)
    nn.init.zeros_(into.weight)
    # the orthogonal start of a weight that has more rows than columns is scaled so that its columns keep their length
    nn.init.orthogonal_(back.weight, 0.1 * max(1, rank / width) ** 0.5)
    if start is not None:
        with torch.no_grad():
            back.bias.copy_(start)
    return nn.Sequential(into, between, back)


class RWKV7(Mixer):
    r"""A memory corrected by the delta rule in which every channel has its own decay and its own rate of learning.

    .. math::
        S_t = \operatorname{diag}(w_t)\, S_{t-1} - (c_t \odot a_t \odot \kappa_t) \kappa_t^\top S_{t-1} + k_t v_t^\top
    .. math::
        y_t = W_o \bigl((\operatorname{norm}(S_t^\top r_t) + (r_t \odot \rho)^\top k_t\, v_t) \odot g_t\bigr)
    .. math::
        w_t = \exp(-e^{-1/2} \sigma(\omega + B_w \tanh(A_w x^{(w)}_t))) \qquad
        a_t = \sigma(\alpha + B_a A_a x^{(a)}_t) \qquad c_t = 1 + (s - 1)\, w_t \qquad g_t = B_g\, \sigma(A_g x^{(g)}_t)
    .. math::
        \kappa_t = \frac{k'_t \odot \xi}{\lVert k'_t \odot \xi \rVert} \qquad
        k_t = k'_t \odot (1 + (a_t - 1) \odot \eta) \qquad
        v_t = v'_t + (v^{0}_t - v'_t) \odot \sigma(\nu + B_v A_v x^{(v)}_t)

    where r, k' and v' are linear, each in its own blend of x and the x before it,
    :math:`x^{(i)}_t = x_t + \mu_i \odot (x_{t-1} - x_t)`, norm is a group norm of each head with epsilon 64e-5, and
    :math:`v^0` are the values of the stack's first layer, which every later layer reads too: `share` gives them,
    `first` takes them. In that layer v = v'. Goose, Peng et al. 2025, https://arxiv.org/abs/2503.14456. The paper's
    block is this and then `channel_mix` without `receptance`. Unlike the authors' code heads are counted, not fixed at
    64 features each, lengths have 1e-6 inside the root, no square projection starts at zero, and c need not be 1. It
    follows the decay because a c above 1 + w could have an eigenvalue below -1; with s = 2 it is 1 + w.

    State: the last x, `(B, D)`, and the memory S, `(B, H, K, K)` with K = width / heads; float32.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        strength: s, in (0, 2], the most that one step takes of what its key recalls where nothing fades. 1 as in the
            paper; above 1 a step may flip its sign, with which it can count modulo 2.
        decay_rank: of the map that chooses the decay, A_w and B_w; None: 2.5 sqrt(width), to a multiple of 32.
        rate_rank: of the map that chooses the rate, A_a and B_a; None: as `decay_rank`.
        value_rank: of the map that blends in the first layer's values; None: 1.7 sqrt(width), likewise.
        gate_rank: of the gate's map, A_g and B_g; None: 5 sqrt(width), likewise.
        layer: which layer of the stack this is, from 0: sets where decays, blends and the norm start.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, `strength` is outside (0, 2], `layer` is not one of `depth`, or a
            later layer runs without the first one's values.
    """

    shares = True
    undecayed = ("shift.share", "bonus")

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        strength: float = 1.0,
        decay_rank: int | None = None,
        rate_rank: int | None = None,
        value_rank: int | None = None,
        gate_rank: int | None = None,
        layer: int = 0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        up, left = place(layer, depth)
        self.heads, self.size, self.layer = heads, divide(width, heads), layer
        self.strength = check_strength(strength)
        # receptance, decay, key, value, rate, gate
        self.shift = TokenShift(*(looking_back(width, share * left) for share in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)))
        projections = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.receptance, self.key, self.value, self.out = projections
        ramp = torch.arange(width) / max(width - 1, 1)
        line = ramp - 0.5
        inside = 2 * (torch.arange(width) % self.size) / max(self.size - 1, 1) - 1
        bow = inside * inside.abs()

        def rank(given: int | None, factor: float) -> int:
            return given or max(32, 32 * round(factor * math.sqrt(width) / 32))

        rates = -5.5 + 6 * ramp ** (1 + up**0.3) + 2.5 * bow
        self.decay = _narrow(width, rank(decay_rank, 2.5), nn.Tanh(), rates)
        self.rate = _narrow(width, rank(rate_rank, 2.5), nn.Identity(), -0.19 + 0.3 * bow + 0.4 * line)
        self.gate = _narrow(width, rank(gate_rank, 5.0), nn.Sigmoid(), None)
        # the first layer has no earlier values to blend in
        self.blend = _narrow(width, rank(value_rank, 1.7), nn.Identity(), 0.73 - 0.4 * line) if layer else None
        self.removal = nn.Parameter(0.71 - 0.1 * line)
        self.replacement = nn.Parameter(torch.full((width,), 1.02))
        self.bonus = nn.Parameter(torch.full((heads, self.size), -0.04))
        self.norm = HeadNorm(width, heads, bias=True, epsilon=64e-5)
        nn.init.constant_(self.norm.weight, ((1 + layer) / depth) ** 0.7)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        memory = self.zeros(batch, self.heads, self.size, self.size)
        return self.zeros(batch, self.out.in_features), memory

    def share(
        self, x: Float[Tensor, "B T D"], state: State | None = None, clock: Clock | None = None
    ) -> Float[Tensor, "B T D"]:
        """What later layers of the stack read of this one, the first: its values at the same steps."""
        return self.in_order(self._values, x, state, clock)[0]

    def _values(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Tensor, Tensor]:
        blends, past = self.shift(x, state[0], clock)
        return self.value(blends[3]), past

    def mix(
        self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None, first: Float[Tensor, "B T D"] | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        past, memory = state
        (for_query, for_decay, for_key, for_value, for_rate, for_gate), past = self.shift(x, past, clock)
        query, key, value = self.receptance(for_query), self.key(for_key), self.value(for_value)
        if (first is None) != (self.blend is None):
            rule = "reads no other" if self.blend is None else "reads the first"
            raise ValueError(
                f"layer {self.layer} of RWKV7 {rule} layer's values: `first` is what `share` of layer 0 gave"
            )
        if first is not None and self.blend is not None:
            value = torch.lerp(value, first, self.blend(for_value).sigmoid())
        parts = query, key, value, self.rate(for_rate), self.decay(for_decay), self.gate(for_gate)
        query, key, value, rate, decay, gate = (self._heads(part.to(memory.dtype)) for part in parts)
        shares = map(self._heads, (self.removal, self.replacement))
        learn = Map("rwkv7_learn", _learn, 4, _square, constants=(self.strength,))
        written, removed, answer, log_decay = pointwise(learn, key, rate, decay, *shares)
        read, memory = self.scan(LowRank(query, written, value, removed, answer, log_decay), memory, clock)
        scales = map(self._heads, self.norm.affine())
        way = Map("rwkv7_answer", _answer, 1, _moments, constants=(self.norm.epsilon,))
        y = pointwise(way, query, written, value, read, gate, read.detach()[..., :1], *scales, self.bonus)
        return self.out(y.flatten(-2).to(x.dtype)), (past, memory)

    def _heads(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B H K"]:
        return x.unflatten(-1, (self.heads, -1))
