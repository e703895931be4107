"""mLSTM, the matrix memory of xLSTM."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.ops.pointwise import Map, pointwise
from recurra.parts import gates
from recurra.parts.blocks import BlockLinear
from recurra.parts.conv import ShortConvolution
from recurra.parts.exponential import Stabiliser
from recurra.parts.heads import divide
from recurra.parts.init import shallow_, small_
from recurra.parts.linear import halves, plain
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor

FEW = 64  # steps of which q, k and v are brought together sooner than weights are multiplied


def _moments(
    read: Tensor, seen: Tensor, gate: Tensor, first: Tensor, share: Tensor, weight: Tensor, skip: Tensor
) -> tuple[Tensor, Tensor]:
    x = share * (read - first)
    return x, x * x


def _read(
    read: Tensor,
    seen: Tensor,
    gate: Tensor,
    first: Tensor,
    share: Tensor,
    weight: Tensor,
    skip: Tensor,
    total: Tensor,
    squares: Tensor,
    count: Tensor | int,
    epsilon: float,
) -> Tensor:
    """(norm(h) + d c) silu(z), with h as it is from its first feature: no mean is far from there, so that the variance,
    a difference, keeps its digits."""
    mean = total / count
    normal = (share * (read - first) - mean) * (squares / count - mean * mean + epsilon).rsqrt()
    return (normal * weight + skip * seen) * F.silu(gate)


class MLSTM(Mixer):
    r"""A matrix memory with exponential gates, which can overrule all that was stored, in a block of its own.

    .. math::
        C_t = \sigma(\tilde f_t) C_{t-1} + e^{\tilde i_t} k_t v_t^\top \qquad
        n_t = \sigma(\tilde f_t) n_{t-1} + e^{\tilde i_t} k_t \qquad
        h_t = \frac{C_t^\top q_t}{\max(|n_t^\top q_t|, 1)}
    .. math::
        y_t = W_o\bigl((\operatorname{norm}(h_t) + d \odot c_t) \odot \operatorname{silu}(z_t)\bigr) \qquad
        (u_t, z_t) = W_i x_t \qquad c_t = \operatorname{silu}(\operatorname{conv}(u)_t)

    where q and k are linear in c and v in u, each by blocks of a few features, k is over the root of its size, the
    gates i and f are linear in q, k and v together, and norm is a group norm of each head. Beck et al. 2024,
    https://arxiv.org/abs/2405.04517. As in the authors' code C and n are kept over :math:`e^m`, where m is the largest
    faded :math:`\tilde i` so far, and 1e-6 is added to the denominator, which is then
    :math:`\max(|n^\top q|, e^{-m})`. There is no MLP around it in the paper.
    State: the convolution's last inputs `(B, J-1, E)`, m `(B, H)`, and C and n side by side, `(B, H, K, K + 1)` with
    K = E / heads; float32.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `expand * width`.
        expand: inner features as a multiple of `width` (E).
        block: inner features that queries, keys and values are mixed among; divides `expand * width`.
        conv: inputs that the short convolution sees (J).
        stack: blocks in the whole model: the more, the smaller what each adds at the start.

    Raises:
        ValueError: `heads` or `block` does not divide `expand * width`.
    """

    def __init__(
        self, width: int, *, heads: int = 4, expand: int = 2, block: int = 4, conv: int = 4, stack: int = 4
    ) -> None:
        super().__init__()
        inner = expand * width
        self.heads, self.size, self.epsilon = heads, divide(inner, heads, of="expand * width"), 1e-6
        blocks = divide(inner, block, of="expand * width", among="block")
        self.inputs = nn.Linear(width, 2 * inner, bias=False)
        self.conv = ShortConvolution(inner, size=conv)
        self.query, self.key, self.value = (BlockLinear(inner, blocks) for _ in range(3))
        self.gates = nn.Linear(3 * inner, 2 * heads)
        self.norm = HeadNorm(inner, heads, bias=False)
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        self.stabiliser, self.scan = Stabiliser(), Scan()
        small_(self.inputs.weight)
        # the authors count the outer width
        shallow_(self.out.weight, stack)
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.out.weight.mul_(expand**0.5)
            for project in (self.query, self.key, self.value):
                project.weight.normal_(0, (2 / (5 * width)) ** 0.5)
            self.gates.bias.copy_(torch.cat([0.1 * torch.randn(heads), torch.linspace(3, 6, heads)]))

    def initial_state(self, batch: int) -> State:
        peak = self.zeros(batch, self.heads) - torch.inf
        return self.conv.initial_state(batch), peak, self.zeros(batch, self.heads, self.size, self.size + 1)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, peak, memory = state
        real = memory.dtype
        inner, gate = halves(x, self.inputs)
        convolved, past = self.conv(inner, past, clock)
        query, key, value = self.query(convolved), self.key(convolved), self.value(inner)
        write, forget = self._gates(convolved, inner, (query, key, value)).to(real).chunk(2, -1)
        scaled, peak = self.stabiliser(write, F.logsigmoid(forget), peak, clock)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).to(real) for part in (query, key, value))
        key = gates.scaled(key, scaled.weight[..., None] * key.shape[-1] ** -0.5)
        record = Outer(query, key, F.pad(value, (0, 1), value=1.0), scaled.log_decay)
        read, memory = self.scan(record, memory, clock)
        read, size = read.split([self.size, 1], -1)
        size = torch.maximum(size.abs(), (-scaled.peak[..., None]).exp()) + self.epsilon
        seen, gate = (part.unflatten(-1, (self.heads, -1)).to(real) for part in (convolved, gate))
        weight, skip = (part.unflatten(-1, (self.heads, -1)) for part in (self.norm.weight, self.skip))
        way = Map("mlstm", _read, 1, _moments, constants=(self.norm.epsilon,))
        y = pointwise(way, read, seen, gate, read.detach()[..., :1], size.reciprocal(), weight, skip)
        return self.out(y.flatten(-2).to(x.dtype)), (past, peak, memory)

    def _gates(self, convolved: Tensor, inner: Tensor, mixed: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "B T G"]:
        """Linear in q, k and v, which are linear in two arrays: so are the gates, and q, k and v need not meet."""
        mix = self.query, self.key, self.value
        if inner[..., 0].numel() < FEW or not (plain(self.gates) and plain(*mix, kind=BlockLinear)):
            return self.gates(torch.cat(mixed, -1))
        maps = torch.stack([project.weight for project in mix])
        weight = self.gates.weight.unflatten(-1, maps.shape[:3])
        query, key, value = torch.einsum("gabi,abij->agbj", weight, maps).flatten(2)
        return F.linear(convolved, query + key, self.gates.bias) + F.linear(inner, value)
