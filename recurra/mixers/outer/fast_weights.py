"""Fast weights: one network that writes, by outer products, the weights of another."""

from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.heads import divide
from recurra.shapes import Float, Tensor


class FastWeights(Mixer):
    r"""A slow network programs a fast one: at each step it says which of the fast weights grow, from where to where.

    .. math::
        S_t = S_{t-1} + a_t b_t^\top \qquad y_t = S_t^\top x_t \qquad a_t = W_a x_t \qquad b_t = W_b x_t

    S are the weights of the fast network, a and b the FROM and TO patterns of the slow one. Source: Schmidhuber 1992,
    https://doi.org/10.1162/neco.1992.4.1.131, its outer-product form; today it is called unnormalised linear
    attention. Unlike the paper fast weights are not squashed, so that all steps are one scan, and the fast network is
    cut into `heads` that see a part of x each: 1 is as in the paper.

    State: the fast weights S, `(B, H, K, V)`, float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: fast networks (H); divides `width`.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, *, heads: int = 1) -> None:
        super().__init__()
        self.heads, self.size = heads, divide(width, heads)
        self.slow = nn.Linear(width, 2 * width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """No weights: zeros."""
        return self.zeros(batch, self.heads, self.size, self.size)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Say what to write, write it, and run the fast network on the input."""
        source, target = self.slow(x).unflatten(-1, (2, self.heads, self.size)).unbind(2)
        read, state = self.scan(Outer(x.unflatten(-1, (self.heads, self.size)), source, target), state, clock)
        return read.flatten(-2), state
