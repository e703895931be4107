"""Long short-term memory on a grid of pixels.

Its convolution is a linear map. On a small grid the map is written out, once a call, and all steps are the compiled
cell's; on a large one that would be far more work than the convolution of every step.
"""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Cell, Rule, Scan, Vectors
from recurra.ops.cell.rules import LSTM_PEEPHOLE, lstm_peephole
from recurra.shapes import Float, Tensor

SMALL = 512  # features of a grid whose convolution is written out


class ConvLSTM(Mixer):
    r"""A long short-term memory in every pixel of a picture, whose gates look at the pixels around it.

    .. math::
        i_t = \sigma(W_i * x_t + R_i * h_{t-1} + p_i \odot c_{t-1} + b_i) \qquad
        f_t = \sigma(W_f * x_t + R_f * h_{t-1} + p_f \odot c_{t-1} + b_f)
    .. math::
        c_t = f_t \odot c_{t-1} + i_t \odot \tanh(W_g * x_t + R_g * h_{t-1} + b_g)
    .. math::
        o_t = \sigma(W_o * x_t + R_o * h_{t-1} + p_o \odot c_t + b_o) \qquad y_t = h_t = o_t \odot \tanh(c_t)

    with * a convolution over the grid and p one number for every channel of every pixel. Shi et al. 2015,
    https://arxiv.org/abs/1506.04214. Unlike the paper the forget bias starts at 1, and the peepholes at zero.
    The features are a picture end to end: all rows of the first channel, then of the next. On the grid's edge both
    convolutions see zeros. State: (h, c), each `(B, D)`, as the features are laid out; float32.

    Args:
        width: features in and out (D): channels x height x columns.
        channels: of a pixel, in and out.
        height: rows of the grid; 1: a line of pixels.
        size: pixels that a gate sees in either direction, odd.

    Raises:
        ValueError: `channels` x `height` does not divide `width`, or `size` is not odd and positive.
    """

    undecayed = ("peepholes",)

    def __init__(self, width: int, *, channels: int = 4, height: int = 1, size: int = 3) -> None:
        super().__init__()
        if min(channels, height) < 1 or width % (channels * height):
            raise ValueError(
                f"width is {width}: it must be a multiple of channels x height, which is {channels} x {height}"
            )
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size is {size}: it must be odd, so that a pixel is in the middle of what it sees")
        columns = width // (channels * height)
        self.grid = (channels, height, columns)
        # no further than the grid is wide
        kernel = (min(size, 2 * height - 1), min(size, 2 * columns - 1))
        self.input = nn.Conv2d(channels, 4 * channels, kernel, padding="same")
        self.weight = nn.Parameter(torch.empty(4 * channels, channels, *kernel))
        self.peepholes = nn.Parameter(torch.zeros(3, width))
        self.scan = Scan()
        bias = self.input.bias
        assert bias is not None
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.orthogonal_(self.weight)
        nn.init.zeros_(bias)
        # gates are input, forget, candidate, output
        nn.init.ones_(bias[channels : 2 * channels])

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B D"], ...]:
        width = self.peepholes.shape[1]
        return self.zeros(batch, width), self.zeros(batch, width)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B D"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
        drive = self.input(x.reshape(-1, *self.grid)).reshape(*x.shape[:2], -1)
        if x.shape[-1] <= SMALL:
            record = Cell(LSTM_PEEPHOLE, drive, self._written_out(), self.peepholes)
        else:
            record = Cell(_rule(self.grid), drive, self.weight, self.peepholes)
        return self.scan(record, state, clock)

    def _written_out(self) -> Float[Tensor, "4 1 D D"]:
        """The convolution as a matrix for each gate: its columns are what it makes of one feature at a time."""
        every = torch.eye(self.peepholes.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        columns = F.conv2d(every.unflatten(-1, self.grid), self.weight, padding="same")
        return columns.flatten(1).T.unflatten(0, (4, 1, -1))


@functools.cache
def _rule(grid: tuple[int, int, int]) -> Rule:
    step = functools.partial(_step, grid=grid)
    return Rule("conv_lstm", step, 4, 4, state=2, params=3, operator="own")


def _step(
    drive: Vectors, recur: Vectors, state: Vectors, *peepholes: Tensor, grid: tuple[int, int, int]
) -> tuple[Tensor, Vectors]:
    """The peephole rule, its recurrent product a convolution."""
    gates = F.conv2d(state[0].unflatten(-1, grid), recur[0], padding="same")
    return lstm_peephole(drive, gates.flatten(1).chunk(4, -1), state, *peepholes)
