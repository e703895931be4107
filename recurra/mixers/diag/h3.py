"""Hungry hungry hippos."""

from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.conv import ShortConvolution
from recurra.parts.heads import divide
from recurra.parts.state_space import DiagonalStateSpace
from recurra.shapes import Float, State, Tensor


class H3(Mixer):
    r"""Linear attention with state spaces in it: keys are kept for some steps, what they and the values make for long.

    .. math::
        k_t \leftarrow \sum_{j<J} w_j \odot k_{t-j}
        \qquad
        S_t = \operatorname{SSM}(k v^\top)_t
        \qquad
        y_t = W_o\, (S_t^\top q_t) + \beta

    for every head, with q, k, v affine in x. The first map is the paper's shift state space, whose state is the last
    keys: a learned filter of J taps. Its skip is the filter's first tap. The second is S4D's, with one set of
    parameters a head for all pairs of a key's and a value's features. Dao et al. 2023,
    https://arxiv.org/abs/2212.14052. Unlike the authors' code, whose default is the bilinear rule, the second map is
    discretised by zero-order hold as S4D is, and no kernel as long as the sequence is made, so nothing is tied to a
    length. State: the last keys `(B, J-1, D)`, float32, and the states of every pair
    `(B, D P, N/2)`, complex64, P = `head_width`.

    Args:
        width: features in and out (D).
        head_width: features of a head's keys and values (P); divides `width`.
        units: states of each pair (N), each conjugate counted; even.
        taps: keys that the filter sees, the present one included (J).

    Raises:
        ValueError: `head_width` does not divide `width`, or `units` is odd.
    """

    undecayed = ("space.log_rate", "space.frequency")

    def __init__(self, width: int, *, head_width: int = 1, units: int = 64, taps: int = 64) -> None:
        super().__init__()
        heads, self.head_width = divide(width, head_width, among="head_width"), head_width
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.shift = ShortConvolution(width, size=taps, bias=False, silu=False)
        self.space = DiagonalStateSpace(heads, units, start="lin", copies=head_width**2)
        nn.init.normal_(self.shift.weight[:, -1])

    def initial_state(self, batch: int) -> State:
        return self.shift.initial_state(batch), self.space.initial_state(batch)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, pairs = state
        key, past = self.shift(self.key(x), past, clock)
        query, key, value = (p.unflatten(-1, (-1, self.head_width)) for p in (self.query(x), key, self.value(x)))
        outer = key[..., :, None] * value[..., None, :]
        read, pairs = self.space(outer.flatten(2), pairs, clock)
        read = query[..., :, None] * read.view_as(outer)
        read = read.sum(-2) if self.head_width > 1 else read
        return self.out(read.flatten(2)), (past, pairs)
