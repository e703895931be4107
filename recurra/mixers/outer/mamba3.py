"""Mamba-3: a state space model whose steps are trapezoids, whose states turn, and which may write several at a time."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Outer, Scan
from recurra.ops.shift import shift
from recurra.ops.steps import finer
from recurra.parts.heads import divide
from recurra.parts.init import step_bias_
from recurra.parts.norms import RMSNorm
from recurra.parts.rotary import rotate
from recurra.shapes import Float, Tensor

Mamba3State = tuple[
    Float[Tensor, "B H N P"],
    Float[Tensor, "B H A"],
    Float[Tensor, "B R H N"],
    Float[Tensor, "B R H P"],
    Float[Tensor, "B H"],
    Float[Tensor, "B H"],
]


class Mamba3(Mixer):
    r"""A state space model that turns what it remembers, so that it can count, and mixes each input with the last.

    .. math::
        S_t = \alpha_t S_{t-1} + (1 - \lambda_t) \Delta_t \alpha_t\, k_{t-1} x_{t-1}^\top
        + \lambda_t \Delta_t\, k_t x_t^\top \qquad
        r_t = S_t^\top q_t + d \odot x_t \qquad
        y_t = W_o (r_t \odot \operatorname{swish}(z_t))

    .. math::
        q_t = R(\theta_t)(\operatorname{norm}(C_t) + c) \qquad
        k_t = R(\theta_t)(\operatorname{norm}(B_t) + b) \qquad
        \theta_t = \theta_{t-1} + \pi \Delta_t \tanh(\omega_t)

    .. math::
        \Delta_t = \operatorname{softplus}(\delta_t + \beta) \qquad
        \alpha_t = e^{-\Delta_t \max(h(a_t),\, 10^{-4})} \qquad
        \lambda_t = \sigma(\tau_t) \qquad
        h(a) = 1 + a \text{ for } a \ge 0, \text{ else } 1 / (1 - a)

    Here z, x, B, C, :math:`\delta`, a, :math:`\tau` and :math:`\omega` are one linear projection of the input, b and c
    biases of each head, and R turns pairs (2i, 2i+1). With `rank` R > 1 (MIMO), R keys and queries write and read the
    same memory: :math:`x_r = m^x_r \odot x`, :math:`z_r = m^z_r \odot z`, and the R reads, gated, are summed with
    weights :math:`m^o_r`. Source: Lahoti et al. 2026 (Mamba-3), https://arxiv.org/abs/2603.15569. As in the authors'
    reference code, but heads are counted, not fixed at 64 features each; its kernels for R > 1 turn pairs (i, i + N/2).

    A step's key is written twice, by its own step and by the next; both writes are made at once, one step late, so
    that all steps are one scan. State: the memory of all steps but the last, `(B, H, N, P)`, P = expand * width /
    heads; the phase :math:`\theta` in [0, 2 pi), `(B, H, A)`, float64; and of the last step the keys `(B, R, H, N)`,
    the values `(B, R, H, P)`, :math:`\lambda \Delta` and :math:`\log \alpha`, `(B, H)`; float32 (float64 if the
    parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `expand * width`.
        state_size: numbers remembered for each feature (N); a multiple of 4.
        expand: the inner width is `expand * width`.
        groups: heads share B and C in this many groups; divides `heads`.
        rank: keys, values and queries of one step (R).
        turning: the part of the state that turns, 1/2 or 1.

    Raises:
        ValueError: a size does not divide what it must, `rank` is less than 1, or `turning` is another.
    """

    undecayed = ("key_bias", "query_bias", "mix_value", "mix_gate", "mix_out")

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        state_size: int = 64,
        expand: int = 2,
        groups: int = 1,
        rank: int = 1,
        turning: float = 0.5,
    ) -> None:
        super().__init__()
        inner = expand * width
        size = divide(inner, heads, of="expand * width")
        self.sharing = divide(heads, groups, of="heads", among="groups")
        if turning not in (0.5, 1.0):
            raise ValueError(f"turning is {turning}: it must be 0.5 or 1")
        if state_size % 4:
            raise ValueError(f"state_size is {state_size}: it must be a multiple of 4, for it is turned in pairs")
        at_least(1, rank=rank)
        self.heads, self.state_size, self.groups, self.rank = heads, state_size, groups, rank
        self.angles = int(state_size * turning) // 2
        shared = rank * groups * state_size
        self.splits = [inner, inner, shared, shared, heads, heads, heads, self.angles]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.step_bias = nn.Parameter(torch.empty(heads))
        self.key_norm, self.query_norm = RMSNorm(state_size), RMSNorm(state_size)
        self.key_bias, self.query_bias = (nn.Parameter(torch.ones(rank, heads, state_size)) for _ in range(2))
        self.skip = nn.Parameter(torch.ones(heads))
        if rank > 1:
            each = (rank, heads, size)
            self.mix_value, self.mix_out = (nn.Parameter(torch.full(each, 1 / rank)) for _ in range(2))
            self.mix_gate = nn.Parameter(torch.ones(each))
        self.out = nn.Linear(inner, width, bias=False)
        step_bias_(self.step_bias)
        self.phase, self.scan = Scan(), Scan()

    def initial_state(self, batch: int) -> Mamba3State:
        """Nothing remembered, not turned, nothing seen: zeros."""
        size = self.out.in_features // self.heads
        memory = self.zeros(batch, self.heads, self.state_size, size)
        phase = self.zeros(batch, self.heads, self.angles).double()
        key, value = (self.zeros(batch, self.rank, self.heads, n) for n in (self.state_size, size))
        return memory, phase, key, value, self.zeros(batch, self.heads), self.zeros(batch, self.heads)

    def mix(self, x: Float[Tensor, "B T D"], state: Mamba3State, clock: Clock | None) -> tuple[Tensor, Mamba3State]:
        """Project, turn, remember, gate."""
        memory, phase, last_key, last_value, last_now, last_decay = state
        gate, value, key, query, step, rate, blend, turn = self.project(x).split(self.splits, -1)
        gate, value = (part.unflatten(-1, (1, self.heads, -1)) for part in (gate, value.to(memory.dtype)))
        if self.rank > 1:
            gate, value = gate * self.mix_gate, value * self.mix_value
        # the step, and all that follows from it, is wide: a rounded decay is wrong at every later step
        step, rate, blend, turn = (part.to(memory.dtype) for part in (step, rate, blend, turn))
        step = F.softplus(step + self.step_bias)
        log_decay = -step * torch.where(rate >= 0, 1 + rate, 1 / (1 - rate.clamp(max=0))).clamp_min(1e-4)
        turn = math.pi * step[..., None] * turn.tanh()[..., None, :]
        # in float64 and within one turn: in float32 a long sum of angles is no angle
        phases, phase = self.phase(Diag(torch.ones_like(phase[0]), turn.double()), phase, clock)
        angle, phase = (part.remainder(2 * math.pi) for part in (phases, phase))
        angle = angle.to(memory.dtype)[:, :, None]
        turns = angle.cos(), angle.sin()
        key = self._turned(self._heads(self.key_norm, key) + self.key_bias, *turns)
        query = self._turned(self._heads(self.query_norm, query) + self.query_bias, *turns)
        now, later = step * blend.sigmoid(), step * blend.neg().sigmoid()
        past_key, last_key = _shifted(key, last_key, clock)
        past_value, last_value = _shifted(value, last_value, clock)
        past_now, last_now = _shifted(now, last_now, clock)
        past_decay, last_decay = _shifted(log_decay, last_decay, clock)
        # the step before is written now that both its halves are known
        write = (past_now + later)[:, :, None, :, None] * past_key
        read, memory = self._remember(query, write, past_value, past_decay, memory, clock)
        score = torch.einsum("btrhn,btshn->btrsh", query, key) * now[:, :, None, None]
        read = log_decay.exp()[:, :, None, :, None] * read + torch.einsum("btrsh,btshp->btrhp", score, value)
        read = (read + self.skip[:, None] * value) * F.silu(gate)
        read = (read * self.mix_out).sum(2) if self.rank > 1 else read[:, :, 0]
        return self.out(read.flatten(-2).to(x.dtype)), (
            memory,
            phase,
            last_key,
            last_value,
            last_now,
            last_decay,
        )

    def _heads(self, norm: RMSNorm, shared: Float[Tensor, "B T _"]) -> Float[Tensor, "B T R H N"]:
        """What the heads of a group share, normalised, once for each head."""
        shared = norm(shared.unflatten(-1, (self.rank, self.groups, 1, self.state_size)))
        return shared.expand(-1, -1, -1, -1, self.sharing, -1).flatten(3, 4)

    def _turned(
        self, x: Float[Tensor, "B T R H N"], cosine: Float[Tensor, "B T 1 H A"], sine: Float[Tensor, "B T 1 H A"]
    ) -> Float[Tensor, "B T R H N"]:
        """The first of the state's pairs, turned, and the others."""
        turned, still = x.split([2 * self.angles, self.state_size - 2 * self.angles], -1)
        return torch.cat([rotate(turned, cosine, sine), still.to(cosine.dtype)], -1)

    def _remember(
        self,
        query: Float[Tensor, "B T R H N"],
        key: Float[Tensor, "B T R H N"],
        value: Float[Tensor, "B T R H P"],
        log_decay: Float[Tensor, "B T H"],
        memory: Float[Tensor, "B H N P"],
        clock: Clock | None,
    ) -> tuple[Float[Tensor, "B T R H P"], Float[Tensor, "B H N P"]]:
        """The `Outer` of R keys and queries a step, as one of a clock with R ticks a step."""
        decay = F.pad(log_decay[:, :, None], (0, 0, 0, self.rank - 1)).flatten(1, 2)
        record = Outer(query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2), decay)
        read, memory = self.scan(record, memory, finer(clock, self.rank))
        read = read.unflatten(1, (-1, self.rank))
        if self.rank > 1:
            # read r has seen the writes up to r: these are the others
            score = torch.einsum("btrhn,btshn->bthrs", query, key).triu(1)
            read = read + torch.einsum("bthrs,btshp->btrhp", score, value)
        return read, memory


def _shifted(
    new: Float[Tensor, "B T ..."], last: Float[Tensor, "B ..."], clock: Clock | None
) -> tuple[Float[Tensor, "B T ..."], Float[Tensor, "B ..."]]:
    """What each step's predecessor had, and what the last step that happened has."""
    previous, after = shift(new.flatten(2), last.flatten(1), clock)
    return previous.view_as(new), after.view_as(last)
