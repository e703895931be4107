"""mLSTM, the matrix memory of xLSTM."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts import gates
from recurra.parts.blocks import BlockLinear
from recurra.parts.conv import ShortConvolution
from recurra.parts.exponential import Stabiliser
from recurra.parts.heads import divide
from recurra.parts.init import shallow_, small_
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor


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
        inner, gate = self.inputs(x).chunk(2, -1)
        convolved, past = self.conv(inner, past, clock)
        query, key, value = self.query(convolved), self.key(convolved), self.value(inner)
        write, forget = self.gates(torch.cat([query, key, value], -1)).to(memory.dtype).chunk(2, -1)
        scaled, peak = self.stabiliser(write, F.logsigmoid(forget), peak, clock)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).to(memory.dtype) for part in (query, key, value))
        key = gates.scaled(key, scaled.weight[..., None] * key.shape[-1] ** -0.5)
        record = Outer(query, key, F.pad(value, (0, 1), value=1.0), scaled.log_decay)
        read, memory = self.scan(record, memory, clock)
        read, size = read.split([self.size, 1], -1)
        size = torch.maximum(size.abs(), (-scaled.peak[..., None]).exp()) + self.epsilon
        h = self.norm(gates.scaled(read, size.reciprocal()).flatten(-2)).to(x.dtype)
        return self.out(gates.skipping(h, convolved, gate, self.skip)), (past, peak, memory)
