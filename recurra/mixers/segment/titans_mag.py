"""Titans with the memory as gate: attention to what is near, and beside it a memory of all, which gates it."""

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.learner import Learner
from recurra.parts.norms import RMSNorm
from recurra.parts.persistent import PersistentWindow
from recurra.parts.window import Near
from recurra.shapes import Float, Tensor


class TitansMAG(Mixer):
    r"""Attention to the last steps, gated by what a memory in training says of them all.

    .. math::
        y_t = \operatorname{attention}\bigl(x_t;\, [p;\, x_{t - W < j \le t}]\bigr) \qquad
        m_t = M_t(x_t) \qquad
        o_t = \operatorname{norm}(y_t) \odot \sigma\bigl(\operatorname{norm}(m_t)\bigr)

    where p are N learned (persistent) keys and values, which every step sees; attention is a softmax in every head,
    with queries, keys, values and output linear, the window's turned by position; :math:`M_t` is the neural memory of
    `titans`, trained on each x as it comes, with its own projections and convolution; and each norm is an RMSNorm with
    a weight a feature. Memory as a gate (MAG) of Behrouz et al. 2024, https://arxiv.org/abs/2501.00663, section 4.2:
    two branches, a precise one of what is near and a fading one of all.

    The paper says that both branches are normalised with learned weights and meet in a non-linearity; which, we chose:
    the memory is the gate. Unlike the paper, the persistent tokens are keys and values and not inputs, which for
    attention is the same; the memory does not see them: what it would learn of them before the first step is the same
    for every sequence, as are its initial weights, which are learned. They are not turned by positions, so that
    nothing depends on where in the sequence a step is.

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
        self.attention = PersistentWindow(width, window=window, tokens=tokens, heads=heads, base=base)
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size, momentum=True
        )
        self.attended, self.remembered = RMSNorm(width), RMSNorm(width)

    def initial_state(self, batch: int) -> tuple[Near, tuple[Tensor, ...]]:
        """No steps, the initial weights."""
        return self.attention.initial_state(batch), self.learner.initial_state(batch)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Near, tuple[Tensor, ...]], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Near, tuple[Tensor, ...]]]:
        """Attend, learn and ask, gate."""
        near, memory = state
        y, near = self.attention(x, near, clock)
        m, memory = self.learner(x, memory, clock)
        return self.attended(y) * self.remembered(m).sigmoid(), (near, memory)
