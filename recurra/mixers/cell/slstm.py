"""sLSTM, the scalar memory of xLSTM."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.parts.blocks import BlockLinear, beside
from recurra.parts.conv import ShortConvolution
from recurra.parts.heads import divide
from recurra.parts.lerp import place
from recurra.parts.norms import HeadNorm
from recurra.shapes import Float, State, Tensor


def slstm(drive: Vectors, recur: Vectors, state: Vectors, *bias: Tensor) -> tuple[Tensor, Vectors]:
    """Gates: input, forget, candidate, output. State: h, and c and n over e^m, and m; n is zero before any step."""
    _, c, n, m = state
    i, f, z, o = (x + r + b for x, r, b in zip(drive, recur, bias, strict=True))
    log_f = F.logsigmoid(f)
    fresh = n == 0
    peak = torch.where(fresh, i, torch.maximum(m + log_f, i))
    # near numbers first: their difference is exact, so what m loses to rounding is made good
    forget = torch.where(fresh, torch.zeros_like(m), m - peak + log_f).exp()
    write = (i - peak).exp()
    c = forget * c + write * torch.tanh(z)
    n = forget * n + write
    h = torch.sigmoid(o) * c / n
    return h, (h, c, n, peak)


SLSTM_RULE = Rule("slstm", slstm, 4, 4, state=4, params=4)


class SLSTM(Mixer):
    r"""An LSTM with exponential gates and a count of what it stored, whose units see each other only within a head.

    .. math::
        c_t = \sigma(\tilde f_t) \odot c_{t-1} + e^{\tilde i_t} \odot \tanh(\tilde z_t) \qquad
        n_t = \sigma(\tilde f_t) \odot n_{t-1} + e^{\tilde i_t} \qquad
        h_t = \sigma(\tilde o_t) \odot \frac{c_t}{n_t} \qquad y_t = \operatorname{norm}(h_t)

    with :math:`\tilde g_t = W_g u^{(g)}_t + R_g h_{t-1} + b_g` for each gate g, where W and R are block-diagonal, a
    block a head, u is x for z and o and a short convolution of x with SiLU for i and f, and norm is a group norm of
    each head. Beck et al. 2024, https://arxiv.org/abs/2405.04517. As in the authors' code c and n are kept over
    :math:`e^m`, where m is the largest faded :math:`\tilde i` so far, R starts at zero and the forget bias is a power
    law over a head's units, which depends on the layer. Unlike their code a sequence begins for each row by itself.
    State: the convolution's last inputs `(B, J-1, D)` and h, c, n and m, each `(B, D)`; float32.

    Args:
        width: features in and out (D).
        heads: blocks of R (H); divides `width`.
        conv: inputs that the short convolution sees (J).
        layer: which layer of the stack this is, from 0: sets where the forget bias starts.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, or `layer` is not one of `depth`.
    """

    undecayed = ("bias",)

    def __init__(self, width: int, *, heads: int = 4, conv: int = 4, layer: int = 0, depth: int = 1) -> None:
        super().__init__()
        size = divide(width, heads)
        up, _ = place(layer, depth)
        self.conv = ShortConvolution(width, size=conv)
        self.input, self.forget, self.candidate, self.gate = (BlockLinear(width, heads) for _ in range(4))
        self.weight = nn.Parameter(torch.zeros(4, heads, size, size))
        law = 5 - 12 * (torch.arange(size) / max(size - 1, 1)) ** (0.3 + 1.3 * up)
        nothing = torch.zeros(width)
        self.bias = nn.Parameter(torch.stack([nothing, law.repeat(heads), nothing, nothing]))
        self.norm = HeadNorm(width, heads, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        width = self.bias.shape[1]
        return self.conv.initial_state(batch), tuple(self.zeros(batch, width) for _ in range(4))

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, cell = state
        convolved, past = self.conv(x, past, clock)
        drive = beside((self.input, self.forget, self.candidate, self.gate), convolved, x)
        record = Cell(SLSTM_RULE, drive, self.weight, self.bias)
        read, cell = self.scan(record, cell, clock)
        return self.norm(read), (past, cell)
