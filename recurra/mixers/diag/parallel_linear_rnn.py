"""The gated linear recurrence that was first run in parallel, and the LSTM built on it."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.shift import shift
from recurra.shapes import Float, Tensor


class ParallelLinearRNN(Mixer):
    r"""A running mean whose rate the input sets: a recurrence so plain that all its steps run at once.

    .. math::
        g_t = \sigma(U x_t + \beta) \qquad
        \tilde h_t = g_t \odot \tilde h_{t-1} + (1 - g_t) \odot \tanh(V x_t + \gamma) \qquad y_t = \tilde h_t

    This is the GILR. With `lstm` it stands in for the state that an LSTM's gates would look at (GILR-LSTM):

    .. math::
        (\tilde f_t, \tilde i_t, \tilde o_t, \tilde z_t) = W [\tilde h_{t-1}, x_t] + \delta \qquad
        c_t = \sigma(\tilde f_t) \odot c_{t-1} + \sigma(\tilde i_t) \odot \tanh(\tilde z_t) \qquad
        y_t = \sigma(\tilde o_t) \odot c_t

    Martin & Cundy 2018, https://arxiv.org/abs/1709.04057. As in the authors' code the cell is read without tanh;
    unlike that code, which shows the gates :math:`\tilde h_t`, they see the step before, as an LSTM's do.
    Unlike the paper there is no layer norm.
    State: (h,), `(B, D)`, and with `lstm` (h, c); float32.

    Args:
        width: features in and out, and units (D).
        lstm: whether an LSTM's gates and cell follow.
    """

    def __init__(self, width: int, *, lstm: bool = False) -> None:
        super().__init__()
        self.gate, self.impulse = nn.Linear(width, width), nn.Linear(width, width)
        self.gates = nn.Linear(2 * width, 4 * width) if lstm else None
        self.scan, self.cell = Scan(), Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        """All zero."""
        return tuple(self.zeros(batch, self.gate.out_features) for _ in range(1 if self.gates is None else 2))

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        # wide, and 1 - g a sigmoid of its own: a decay near 1 that is rounded is wrong at every later step
        gate = self.gate(x).to(state[0].dtype)
        read, h = self.scan(Diag(gate.sigmoid(), (-gate).sigmoid() * self.impulse(x).tanh()), state[0], clock)
        if self.gates is None:
            return read.to(x.dtype), (h,)
        before, _ = shift(read.to(x.dtype), state[0], clock)
        forget, write, output, candidate = self.gates(torch.cat([before, x], -1)).chunk(4, -1)
        record = Diag(forget.to(h.dtype).sigmoid(), write.sigmoid() * candidate.tanh())
        read, c = self.cell(record, state[1], clock)
        return output.sigmoid() * read, (h, c)
