"""The differentiable neural computer."""

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Linked
from recurra.parts.controller import Controller
from recurra.shapes import Float, Tensor


class DNC(Mixer):
    r"""A recurrent network with a memory that it allocates, frees, and reads again in the order it was written.

    .. math::
        \xi_t = W_\xi h_t + b_\xi \qquad h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad
        y_t = W_y [h_t; r_t]

    where :math:`\xi` holds keys k, strengths :math:`\beta`, 1 and a softplus, free gates f, an allocation gate
    :math:`g^a`, a write gate :math:`g^w` and e, all by sigmoids, v, and read modes :math:`\pi` by softmax. Slots are
    used as they were written and not freed, and those used least, :math:`\phi` of them in order, are allocated:

    .. math::
        u_t = (u_{t-1} + w_{t-1} - u_{t-1} \odot w_{t-1}) \odot \prod_i (1 - f^i w^{r,i}_{t-1}) \qquad
        a_{\phi_j} = (1 - u_{\phi_j}) \prod_{i < j} u_{\phi_i}

    .. math::
        w_t = g^w \big( g^a a + (1 - g^a)\, \operatorname{softmax}(\beta \cos(k, M_{t-1})) \big) \qquad
        M_t = M_{t-1} \odot (1 - w_t e^\top) + w_t v^\top

    Links say which slot was written after which, and heads read along them, back, or by content:

    .. math::
        L_{ij} \leftarrow (1 - w_i - w_j) L_{ij} + w_i\, p_j, \; L_{ii} = 0 \qquad
        p \leftarrow \Big( 1 - \sum_i w_i \Big) p + w

    .. math::
        w^r_t = \pi_1 L^\top w^r_{t-1} + \pi_2 \operatorname{softmax}(\beta^r \cos(k^r, M_t)) + \pi_3 L w^r_{t-1} \qquad
        r_t = M_t^\top w^r_t

    Graves et al. 2016, https://doi.org/10.1038/nature20101. As in the authors' code (https://github.com/google-deepmind
    /dnc) usage is at least :math:`10^{-6}` where slots are allocated; unlike it the controller's output is not clipped.
    Where slots are used alike, to :math:`10^{-6}`, the first is allocated: theirs lets a rounding decide. No form of
    this runs all steps at once: it goes one by one.

    State: (h, c, r, M, u, w, :math:`w^r`, L, p): `(B, D)` twice, `(B, heads * size)`, `(B, slots * size)`, `(B, slots)`
    twice, `(B, heads * slots)`, `(B, slots * slots)`, `(B, slots)`; without links the last two are not there; float32.

    Args:
        width: features in and out, and units of the controller (D).
        slots: of the memory (N); with links a step costs their square.
        size: numbers in a slot.
        heads: how many heads read.
        links: whether slots are linked in the order of writing; without, heads read by content alone.

    Raises:
        ValueError: `slots`, `size` or `heads` is less than 1.
    """

    undecayed = ("controller.interface.bias",)

    def __init__(self, width: int, *, slots: int = 16, size: int = 16, heads: int = 1, links: bool = True) -> None:
        super().__init__()
        at_least(1, slots=slots, size=size, heads=heads)
        self.controller = Controller(width, Linked(slots, size, heads, links))

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B _"], ...]:
        return self.controller.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B _"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B _"], ...]]:
        return self.controller(x, state, clock)
