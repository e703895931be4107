"""Mamba-3: a state space model whose steps are trapezoids, whose states turn, and which may write several at a time."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Outer, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.steps import blank, finer, restart
from recurra.parts.gates import scaled
from recurra.parts.heads import divide
from recurra.parts.init import step_bias_
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor


def _turn(
    key: Tensor, key_side: Tensor, query: Tensor, query_side: Tensor, cosine: Tensor, sine: Tensor, *bias: Tensor
) -> tuple:
    """Keys and queries, in pairs, each with a head's own bias, turned alike."""
    found = []
    for real, imaginary in ((key + bias[0], key_side + bias[1]), (query + bias[2], query_side + bias[3])):
        found += real * cosine - imaginary * sine, imaginary * cosine + real * sine
    return tuple(found)


def _answer(read: Tensor, gate: Tensor, decay: Tensor, *own: Tensor) -> Tensor:
    """What was read, as much as is left of it, with a share of each of the step's own values, gated."""
    ranks = len(own) // 2
    read = decay * read
    for share, value in zip(own[:ranks], own[ranks:], strict=True):
        read = read + share * value
    return read * F.silu(gate)


TURN, ANSWER = Map("mamba3_turn", _turn, 2, complex=True), Map("mamba3_answer", _answer)

Mamba3State = tuple[
    Float[Tensor, "B H N P"],
    Float[Tensor, "B H A"],
    Float[Tensor, "B R H N"],
    Float[Tensor, "B R H P"],
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

    A step's key is written twice, by its own step and by the next; both writes are made at once, after the step has
    read, so that all steps are one scan. State: the memory without the last step's keys, `(B, H, N, P)`, P = expand *
    width / heads; the phase :math:`\theta` in [0, 2 pi), `(B, H, A)`, float64; and of the last step the keys
    `(B, R, H, N)`, the values `(B, R, H, P)` and :math:`\lambda \Delta`, `(B, H)`; float32 (float64 if the parameters
    are).

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
        return memory, phase, key, value, self.zeros(batch, self.heads)

    def mix(self, x: Float[Tensor, "B T D"], state: Mamba3State, clock: Clock | None) -> tuple[Tensor, Mamba3State]:
        """Project, turn, remember, gate."""
        memory, phase, *last = state
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
        angle = angle.to(memory.dtype)
        key, query = (
            norm(part.unflatten(-1, (self.rank, self.groups, self.state_size))).to(memory.dtype)
            for norm, part in ((self.key_norm, key), (self.query_norm, query))
        )
        key_bias, query_bias = (bias.to(memory.dtype) for bias in (self.key_bias, self.query_bias))
        score = _scores(query, key, *(bias.unflatten(1, (self.groups, -1)) for bias in (query_bias, key_bias)))
        key, query = self._turned(key, query, key_bias, query_bias, angle)
        now, later = step * blend.sigmoid(), step * blend.neg().sigmoid()
        memory = _written(memory, last, later[:, 0], clock)
        read, decay, own, memory = self._remember(query, key, value, score, log_decay, now, later, memory, clock)
        last_key, last_value, last_now = (
            _last(new, old, clock) for new, old in zip((key, value, now), last, strict=True)
        )
        values = (one.expand_as(read) for one in (value.split(1, 2) if self.rank > 1 else (value,)))
        read = pointwise(ANSWER, read, gate, decay[..., None], *own[..., None].unbind(3), *values)
        read = (read * self.mix_out).sum(2) if self.rank > 1 else read[:, :, 0]
        return self.out(read.flatten(-2).to(x.dtype)), (memory, phase, last_key, last_value, last_now)

    def _turned(
        self,
        key: Float[Tensor, "B T R G N"],
        query: Float[Tensor, "B T R G N"],
        key_bias: Float[Tensor, "R H N"],
        query_bias: Float[Tensor, "R H N"],
        angle: Float[Tensor, "B T H A"],
    ) -> tuple[Float[Tensor, "B T R H N"], Float[Tensor, "B T R H N"]]:
        """What the heads of a group share, with each head's own bias, in pairs that are turned."""
        pairs = (
            torch.view_as_complex(part.unflatten(-1, (-1, 2)))[:, :, :, :, None]
            .expand(-1, -1, -1, -1, self.sharing, -1)
            .flatten(3, 4)
            for part in (key, query)
        )
        biases = (side for bias in (key_bias, query_bias) for side in bias.unflatten(-1, (-1, 2)).unbind(-1))
        # what does not turn, turns by nothing
        still = 0, self.state_size // 2 - self.angles
        turns = F.pad(angle.cos(), still, value=1.0), F.pad(angle.sin(), still)
        turns = (part[:, :, None].expand(-1, -1, self.rank, -1, -1) for part in turns)
        key, query = (torch.view_as_real(part).flatten(-2) for part in pointwise(TURN, *pairs, *turns, *biases))
        return key, query

    def _remember(
        self,
        query: Float[Tensor, "B T R H N"],
        key: Float[Tensor, "B T R H N"],
        value: Float[Tensor, "B T R H P"],
        score: Float[Tensor, "B T R R H"],
        log_decay: Float[Tensor, "B T H"],
        now: Float[Tensor, "B T H"],
        later: Float[Tensor, "B T H"],
        memory: Float[Tensor, "B H N P"],
        clock: Clock | None,
    ) -> tuple[
        Float[Tensor, "B T R H P"], Float[Tensor, "B T R H"], Float[Tensor, "B T R R H"], Float[Tensor, "B H N P"]
    ]:
        """The `Outer` of R keys and queries a step, R ticks a step: what is read, what is left of it, and how much a
        step's own keys add."""
        write = now[:, :-1] + later[:, 1:]
        if clock is not None and clock.valid is not None:
            write = blank(clock.valid[:, 1:], write)
        # the last step's keys wait for the step after it
        write = F.pad(write, (0, 0, 0, 1))[:, :, None]
        decay = F.pad(log_decay[:, :, None], (0, 0, 0, self.rank - 1))
        parts = (query, key, scaled(value, write[..., None]), decay)
        record = Outer(*(part.flatten(1, 2) for part in parts), before=True)
        read, memory = self.scan(record, memory, finer(clock, self.rank))
        # own keys count by `now`: what later ticks have read of the writes of earlier ones is taken away
        ticks = torch.arange(self.rank, device=read.device)[:, None]
        earlier, same = ticks[:, None] > ticks, ticks[:, None] == ticks
        own = score * (now[:, :, None, None] - write[:, :, None] * earlier) + self.skip * same
        return read.unflatten(1, (-1, self.rank)), decay.exp(), own, memory


def _scores(
    query: Float[Tensor, "B T R G N"],
    key: Float[Tensor, "B T R G N"],
    query_bias: Float[Tensor, "R G M N"],
    key_bias: Float[Tensor, "R G M N"],
) -> Float[Tensor, "B T R R H"]:
    """Products of every query of a step with every key of the same step, which are turned alike: as if neither were."""
    # as a product of matrices it would be one of almost nothing for every step
    shared = (query[:, :, :, None] * key[:, :, None]).sum(-1, keepdim=True)
    biased = torch.einsum("btrgn,sgmn->btrsgm", query, key_bias) + torch.einsum("btsgn,rgmn->btrsgm", key, query_bias)
    return (shared + biased + torch.einsum("rgmn,sgmn->rsgm", query_bias, key_bias)).flatten(4)


def _written(
    memory: Float[Tensor, "B H N P"], last: Sequence[Tensor], later: Float[Tensor, "B H"], clock: Clock | None
) -> Float[Tensor, "B H N P"]:
    """The memory with the last step's keys, now that both their halves are known."""
    key, value, now = last
    write = now + later
    if clock is not None and clock.reset is not None:
        key, value, write = (restart(clock.reset[:, 0], part) for part in (key, value, write))
    if clock is not None and clock.valid is not None:
        write = restart(~clock.valid[:, 0], write)
    return memory + torch.einsum("brhn,brhp->bhnp", key, write[:, None, :, None] * value)


def _last(new: Float[Tensor, "B T *F"], old: Float[Tensor, "B *F"], clock: Clock | None) -> Float[Tensor, "B *F"]:
    """What the last step that happened has."""
    if clock is None or clock.valid is None:
        return new[:, -1]
    counts = clock.counts
    last = new[torch.arange(len(new), device=new.device), (counts - 1).clamp_min(0)]
    return torch.where((counts > 0).view(-1, *(1,) * (old.ndim - 1)), last, old)
