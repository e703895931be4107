"""Mega: gated attention over a moving average."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, StateSpace
from recurra.ops.attention import attention
from recurra.ops.pointwise import Map, pointwise
from recurra.parts.segment import none_open, within
from recurra.shapes import Float, Int, State, Tensor, wide


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _shared(
    shared: Tensor, scale: Tensor, other_scale: Tensor, shift: Tensor, other_shift: Tensor
) -> tuple[Tensor, ...]:
    """Queries and keys, of one vector."""
    shared = _silu(shared)
    return shared * scale + shift, shared * other_scale + other_shift


def _reset(reset: Tensor, read: Tensor) -> Tensor:
    """What was found, as much as the reset gate lets through."""
    return _silu(reset) * read


def _answer(x: Tensor, gate: Tensor, hidden: Tensor, found: Tensor) -> Tensor:
    """The input, changed as far as the gate is open."""
    return x + torch.sigmoid(gate) * (_silu(hidden + found) - x)


RESET, ANSWER = Map("mega_reset", _reset), Map("mega_answer", _answer)
SHARED = Map("mega_shared", _shared, 2)


class Mega(Mixer):
    r"""A moving average says what is going on, and one head of attention looks at the steps of the present chunk.

    .. math::
        h_t = (1 - \alpha \odot \delta) \odot h_{t-1} + \alpha \odot \beta\, x_t
        \qquad
        m_t = \operatorname{silu}\bigl(N^{-1/2} \gamma^\top h_t + \omega \odot x_t\bigr)
        \\
        z_t = \operatorname{silu}(W_z m_t) \quad q_t = \kappa_q \odot z_t + \mu_q \quad k_t = \kappa_k \odot z_t + \mu_k
        \quad v_t = \operatorname{silu}(W_v x_t) \quad r_t = \operatorname{silu}(W_r m_t) \quad u_t = \sigma(W_u m_t)
        \\
        a_t = \sum_{j} \operatorname{softmax}_j\bigl(q_t^\top k_j / \sqrt{K} + b_{t-j}\bigr)\, v_j
        \qquad
        y_t = x_t + u_t \odot \bigl(\operatorname{silu}(W_h m_t + U_h (r_t \odot a_t)) - x_t\bigr)

    with N averages of each feature, :math:`\alpha, \delta` between 0 and 1, and j from the chunk's first step to t. Ma
    et al. 2022, https://arxiv.org/abs/2209.10655. This is Mega-chunk: chunks of C steps are counted from each
    sequence's start and attention never looks beyond one, so the state is constant, not growing, and nothing but the
    biases b, one for each age within a chunk, is tied to C. Unlike the paper there is no Laplace attention and no
    dropout, and as x is what this layer is given, already normed by its block, so is the x that u gates. State:
    (h, (kept, past)): h, `(B, D, N)`, the keys and values of the present chunk's steps `(B, C-1, K + V)`, zeros after
    the last, float32, and how many they are, `(B,)`.

    Args:
        width: features in and out (D).
        units: averages of each feature (N).
        chunk: steps that attention is restricted to (C).
        key_width: features of queries and keys (K).
        expand: features of values as a multiple of `width` (V = expand D).

    Raises:
        ValueError: `chunk` is less than 2.
    """

    undecayed = ("update", "forget", "scale", "shift")

    def __init__(self, width: int, *, units: int = 16, chunk: int = 128, key_width: int = 64, expand: int = 2) -> None:
        super().__init__()
        if chunk < 2:
            raise ValueError(f"chunk is {chunk}: attention needs at least 2 steps to choose between")
        self.chunk, self.splits = chunk, [width, key_width, expand * width, width]
        self.update, self.forget, self.write, self.read = (nn.Parameter(torch.randn(width, units)) for _ in range(4))
        self.skip = nn.Parameter(torch.randn(width))
        self.value = nn.Linear(width, expand * width)
        # the gate u, then z, r and W_h m together
        self.project = nn.Linear(width, sum(self.splits))
        self.out = nn.Linear(expand * width, width, bias=False)
        self.scale, self.shift = nn.Parameter(0.02 * torch.randn(2, key_width)), nn.Parameter(torch.zeros(2, key_width))
        self.bias = nn.Parameter(0.02 * torch.randn(chunk))
        self.scan = Scan()
        with torch.no_grad():
            for p in (self.update, self.forget):
                p.mul_(0.2)
            self.write.mul_(0.02).add_(1 - 2 * (torch.arange(units) % 2))
            for linear in (self.value, self.project, self.out):
                nn.init.normal_(linear.weight, std=0.02)
            for linear in (self.value, self.project):
                nn.init.zeros_(linear.bias)

    def initial_state(self, batch: int) -> State:
        kept = self.zeros(batch, self.chunk - 1, self.scale.shape[1] + self.out.in_features)
        return self.zeros(batch, *self.read.shape), none_open(kept)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        h, opened = state
        moving, h = self.scan(StateSpace(x, *self._average(wide(x))), h, clock)
        moving = F.silu(moving)
        gate, shared, reset, hidden = self.project(moving).split(self.splits, -1)
        query, key = pointwise(SHARED, shared, *self.scale.unbind(), *self.shift.unbind())
        read, opened = within(self._attend, query, torch.cat([key, F.silu(self.value(x))], -1), opened, clock)
        found = self.out(pointwise(RESET, reset, read))
        return pointwise(ANSWER, x, gate, hidden, found), (h, opened)

    def _average(self, real: torch.dtype) -> tuple[Float[Tensor, "D N"], Float[Tensor, "D N"], Float[Tensor, " D"]]:
        """The logarithm of what is kept of each average, what each counts for in the read, and what x itself does."""
        parts = (self.update, self.forget, self.write, self.read, self.skip)
        update, forget, write, read, skip = (p.to(real) for p in parts)
        update, forget = update.sigmoid(), forget.sigmoid()
        return torch.log1p(-update * forget), update * write * read * read.shape[1] ** -0.5, skip

    def _attend(
        self, query: Float[Tensor, "M Q K"], kept: Float[Tensor, "M C F"], place: Int[Tensor, "_ Q"]
    ) -> Float[Tensor, "M Q V"]:
        """What queries find in their chunk, by content and age."""
        key, value = kept[:, :, None].split([query.shape[-1], self.out.in_features], -1)
        # of the oldest first, as keys are
        ages = self.bias.to(query.dtype).flip(0).expand(*query.shape[:2], 1, -1)
        return attention(query[:, :, None], key, value, torch.zeros_like(place), place, ages)[:, :, 0]
