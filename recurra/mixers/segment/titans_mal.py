"""Titans with the memory as a layer: a memory of all that was, and attention to the last of what it said."""

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.learner import Learner
from recurra.parts.persistent import PersistentWindow
from recurra.parts.window import Near
from recurra.shapes import Float, Tensor


class TitansMAL(Mixer):
    r"""A memory in training reads every step, and attention looks at the last of what it answered.

    .. math::
        m_t = M_t(x_t) \qquad
        y_t = \operatorname{attention}\bigl(m_t;\, [p;\, m_{t - W < j \le t}]\bigr)

    where p are N learned (persistent) keys and values, which every step sees; attention is a softmax in every head,
    with queries, keys, values and output linear in m, the window's turned by position; and :math:`M_t` is the neural
    memory of `titans`, trained on each x as it comes. Memory as a layer (MAL) of Behrouz et al. 2024,
    https://arxiv.org/abs/2501.00663, section 4.3: the two in series, as hybrids of a recurrence and attention are, so
    that attention has nothing that the memory did not let through.

    Unlike the paper, the persistent tokens are keys and values in front of attention's window and not inputs in front
    of the memory: what that would learn of them before the first step is the same for every sequence, as are its
    initial weights, which are learned. They are not turned by positions, so that nothing depends on where in the
    sequence a step is.

    State: (window, memory): the keys and values of the last W - 1 steps `(B, window - 1, H, K)`, oldest first and
    zeros before the sequence's own, and how many steps the sequence has had `(B,)`, int64; then the state of `titans`,
    float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        window: steps that attention sees, the present one included (W).
        tokens: persistent keys and values a head (N); 0: none.
        heads: of attention, and independent memories (H); divides `width` into even parts.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        chunk: steps whose gradients are taken at one place: part of what is computed.
        rate: the most that a step's learning rate can be, above 0.
        conv_size: inputs that the memory's short convolution sees at each step.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, `window`, `depth`, `expand` or `chunk` is less
            than 1, `tokens` is below 0, or `rate` is not greater than 0.
    """

    def __init__(
        self,
        width: int,
        *,
        window: int = 16,
        tokens: int = 4,
        heads: int = 4,
        depth: int = 2,
        expand: int = 4,
        chunk: int = 16,
        rate: float = 0.01,
        conv_size: int = 4,
        base: float = 10000.0,
    ) -> None:
        super().__init__()
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size, momentum=True
        )
        self.attention = PersistentWindow(width, window=window, tokens=tokens, heads=heads, base=base)

    def initial_state(self, batch: int) -> tuple[Near, tuple[Tensor, ...]]:
        """No steps, the initial weights."""
        return self.attention.initial_state(batch), self.learner.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Near, tuple[Tensor, ...]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Near, tuple[Tensor, ...]]]:
        """Learn and ask, then attend to the answers."""
        near, memory = state
        m, memory = self.learner(x, memory, clock)
        y, near = self.attention(m, near, clock)
        return y, (near, memory)
