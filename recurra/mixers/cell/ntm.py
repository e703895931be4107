"""The neural Turing machine."""

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Tape
from recurra.parts.controller import Controller
from recurra.shapes import Float, Tensor


class NTM(Mixer):
    r"""A recurrent network with a tape: heads that read and write slots, found by what they hold or by moving along.

    .. math::
        \xi_t = W_\xi h_t + b_\xi \qquad h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad
        y_t = W_y [h_t; r_t]

    Each head gets of :math:`\xi` a key k, :math:`\beta` by softplus, g by a sigmoid, three numbers s by softmax and
    :math:`\gamma`, 1 and a softplus, and looks at slots

    .. math::
        w^c = \operatorname{softmax}_i(\beta \cos(k, M_i)) \qquad w^g = g\, w^c + (1 - g)\, w_{t-1} \qquad
        w_i \propto \Big( \sum_{j=-1}^{1} s_j\, w^g_{(i - j) \bmod N} \Big)^{\gamma}

    and those that write, with e by a sigmoid and a, change them, all erasing before any adds, before what is read:

    .. math::
        M_t = M_{t-1} \odot \prod (1 - w\, e^\top) + \sum w\, a^\top \qquad r_t = M_t^\top w^r_t

    Graves et al. 2014, https://arxiv.org/abs/1410.5401, which leaves the order open: here, as its indices say, heads
    that write look at the memory before the step, heads that read at the one after. The tape starts blank and every
    head at its first slot. No form of this runs all steps at once: it goes one by one.

    State: (h, c, r, M, w, begun): `(B, D)` twice, `(B, read_heads * size)`, `(B, slots * size)`, `(B, heads * slots)`,
    those that write first, and 1 after a sequence's first step `(B, 1)`; float32.

    Args:
        width: features in and out, and units of the controller (D).
        slots: of the tape (N).
        size: numbers in a slot.
        read_heads: how many heads read.
        write_heads: how many heads write.

    Raises:
        ValueError: there are fewer than 3 slots, or one of the others is less than 1.
    """

    undecayed = ("controller.interface.bias",)

    def __init__(
        self, width: int, *, slots: int = 32, size: int = 16, read_heads: int = 1, write_heads: int = 1
    ) -> None:
        super().__init__()
        if slots < 3:
            raise ValueError(f"slots is {slots}: it must be at least 3, or a slot's neighbours are not two")
        at_least(1, size=size, read_heads=read_heads, write_heads=write_heads)
        self.controller = Controller(width, Tape(slots, size, read_heads, write_heads))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        return self.controller.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        return self.controller(x, state, clock)
