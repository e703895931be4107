"""The quasi-recurrent network."""

import torch
from torch import nn

from recurra.checks import one_of
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan
from recurra.ops.shift import shift
from recurra.shapes import Float, State, Tensor

# how many maps each pooling asks of the convolution: candidate, forget, output, input
POOLINGS = {"f": 2, "fo": 3, "ifo": 4}


class QRNN(Mixer):
    r"""A convolution computes every gate from the last few inputs, and only a running mean is left to be recurrent.

    .. math::
        (\tilde z_t, \tilde f_t, \tilde o_t, \tilde i_t) = \beta + \sum_{j<J} W_j\, x_{t-j} \qquad
        z_t = \tanh \tilde z_t \quad f_t = \sigma(\tilde f_t) \quad o_t = \sigma(\tilde o_t)
        \quad i_t = \sigma(\tilde i_t)
    .. math::
        \text{f:}\;\; y_t = c_t = f_t \odot c_{t-1} + (1 - f_t) \odot z_t \qquad
        \text{fo:}\;\; y_t = o_t \odot c_t \qquad
        \text{ifo:}\;\; c_t = f_t \odot c_{t-1} + i_t \odot z_t,\;\; y_t = o_t \odot c_t

    Bradbury et al. 2017, https://arxiv.org/abs/1611.01576. Each :math:`W_j` is a full matrix. Unlike the paper there
    is no zoneout, no dense connection between layers and no attention of a decoder.
    State: the last J - 1 inputs, newest first, each `(B, D)`, and c `(B, D)`; float32.

    Args:
        width: features in and out, and units (D).
        pooling: "f", "fo" or "ifo".
        size: inputs that the convolution sees (J).

    Raises:
        ValueError: `pooling` is another, or `size` is less than 1.
    """

    def __init__(self, width: int, *, pooling: str = "fo", size: int = 2) -> None:
        super().__init__()
        one_of(POOLINGS, pooling=pooling)
        if size < 1:
            raise ValueError(f"size is {size}: the convolution must see at least 1 input")
        self.pooling, self.size = pooling, size
        self.window = nn.Linear(size * width, POOLINGS[pooling] * width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        """No inputs yet, nothing pooled: zeros."""
        width = self.window.in_features // self.size
        return tuple(self.zeros(batch, width) for _ in range(self.size - 1)), self.zeros(batch, width)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, c = state
        window, last = [x], []
        for before in past:
            # the input j steps back is that j - 1 steps back, one step back
            earlier, newest = shift(window[-1], before, clock)
            window.append(earlier)
            last.append(newest)
        candidate, forget, *more = self.window(torch.cat(window, -1)).chunk(POOLINGS[self.pooling], -1)
        # wide, and 1 - f a sigmoid of its own: a decay near 1 that is rounded is wrong at every later step
        forget = forget.to(c.dtype)
        write = more[1].sigmoid() if self.pooling == "ifo" else (-forget).sigmoid()
        read, c = self.scan(Diag(forget.sigmoid(), write * candidate.tanh()), c, clock)
        read = read.to(x.dtype)
        return read if self.pooling == "f" else more[0].sigmoid() * read, (tuple(last), c)
