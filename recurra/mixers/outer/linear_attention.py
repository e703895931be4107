"""Linear attention: attention whose similarity factorises, so that its past is a matrix instead of a list."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.features import elu_plus_one
from recurra.parts.heads import divide
from recurra.shapes import Float, Tensor


class LinearAttention(Mixer):
    r"""Attention as a recurrence: a weighted mean of every value so far, kept in a matrix of constant size.

    .. math::
        S_t = S_{t-1} + \phi(k_t) v_t^\top \qquad
        z_t = z_{t-1} + \phi(k_t) \qquad
        y_t = W_o \frac{S_t^\top \phi(q_t)}{z_t^\top \phi(q_t) + \epsilon} \qquad
        \phi(x) = \operatorname{elu}(x) + 1

    with q, k, v linear in x. Nothing is ever forgotten. Source: Katharopoulos et al. 2020,
    https://arxiv.org/abs/2006.16236. As in the paper; projections have no bias.

    State: S and z side by side, `(B, H, K, V + 1)`, float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.epsilon = heads, divide(width, heads), 1e-6
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        return self.zeros(batch, self.heads, self.size, self.size + 1)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Project, remember, and divide what is read by the sum of its weights."""
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, self.size)).unbind(2)
        # a value of one beside the others sums the keys: numerator and denominator are one memory
        value = F.pad(value.to(state.dtype), (0, 1), value=1.0)
        read, state = self.scan(Outer(elu_plus_one(query), elu_plus_one(key), value), state, clock)
        mean = read[..., :-1] / (read[..., -1:] + self.epsilon)
        return self.out(mean.flatten(-2).to(x.dtype)), state
