"""Long short-term memory."""

from torch import nn

from recurra.mixers.base import OneCell
from recurra.ops.cell import rules
from recurra.parts.cell import DenseCell


class LSTM(OneCell):
    r"""A recurrent network with a cell beside it that only adds and forgets, so that what is stored stays.

    .. math::
        i_t = \sigma(W_i x_t + R_i h_{t-1} + b_i) \qquad f_t = \sigma(W_f x_t + R_f h_{t-1} + b_f) \qquad
        g_t = \tanh(W_g x_t + R_g h_{t-1} + b_g)
    .. math::
        c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad
        o_t = \sigma(W_o x_t + R_o h_{t-1} + b_o) \qquad y_t = h_t = o_t \odot \tanh(c_t)

    Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735. Unlike the paper there is a forget gate,
    that of Gers et al. 2000, https://doi.org/10.1162/089976600300015015, its bias starting at 1 as Jozefowicz et al.
    2015 found, https://proceedings.mlr.press/v37/jozefowicz15.html. Peepholes add :math:`p_i \odot c_{t-1}`,
    :math:`p_f \odot c_{t-1}` and :math:`p_o \odot c_t` inside the gates: Gers & Schmidhuber 2000,
    https://doi.org/10.1109/IJCNN.2000.861302. Another `hidden` than `width` projects, h = P (o tanh(c)): Sak et al.
    2014, https://arxiv.org/abs/1402.1128.
    State: (h, c), `(B, D)` and `(B, N)`, float32.

    Args:
        width: features in and out (D).
        hidden: cells (N); None: as many as `width`, and no projection.
        peepholes: let the gates see the cell.
        forget_bias: where b_f starts.

    Raises:
        ValueError: `width` or `hidden` is less than 1.
    """

    undecayed = ("cell.params",)

    def __init__(
        self, width: int, *, hidden: int | None = None, peepholes: bool = False, forget_bias: float = 1.0
    ) -> None:
        super().__init__()
        hidden = width if hidden is None else hidden
        rule = rules.LSTM_PEEPHOLE if peepholes else rules.LSTM
        self.cell = DenseCell(rule, width, hidden, project=None if hidden == width else width)
        nn.init.constant_(self.cell.bias[hidden : 2 * hidden], forget_bias)
