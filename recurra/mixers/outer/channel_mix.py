"""The channel mixing of RWKV: an MLP that sees the step before."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.parts.lerp import TokenShift, looking_back, place
from recurra.shapes import Float, Tensor


class ChannelMix(Mixer):
    r"""An MLP over a step and the one before it, the other half of every RWKV block; its only memory is that step.

    .. math::
        y_t = \sigma(W_r x^{(r)}_t) \odot W_v \operatorname{relu}(W_k x^{(k)}_t)^2 \qquad
        x^{(i)}_t = x_t + \mu_i \odot (x_{t-1} - x_t)

    Peng et al. 2023, https://arxiv.org/abs/2305.13048. It has a state, so it is a layer of its own: "rwkv4,channel_mix"
    with no other MLP is the paper's block. Without `receptance` there is no :math:`\sigma(W_r x^{(r)})`, as in RWKV-7
    (Peng et al. 2025, https://arxiv.org/abs/2503.14456). Unlike the authors' code :math:`\mu` is the share of the step
    before, and no projection starts at zero. State: the last x, `(B, D)`, float32.

    Args:
        width: features in and out (D).
        hidden: features inside; 4 of them for each of `width` if not given (RWKV-5 and 6: 3.5).
        receptance: whether a gate follows.
        layer: which layer of the stack this is, from 0: sets where the blends start.
        depth: layers in the stack.

    Raises:
        ValueError: `layer` is not one of `depth`.
    """

    undecayed = ("shift.share",)

    def __init__(
        self, width: int, *, hidden: int | None = None, receptance: bool = True, layer: int = 0, depth: int = 1
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        _, left = place(layer, depth)
        self.shift = TokenShift(*(looking_back(width, left) for _ in range(1 + receptance)))
        self.key, self.value = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False) if receptance else None

    def initial_state(self, batch: int) -> Float[Tensor, "B D"]:
        return self.zeros(batch, self.value.out_features)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B D"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
        blends, state = self.shift(x, state, clock)
        y = self.value(F.relu(self.key(blends[0])).square())
        return y if self.receptance is None else F.sigmoid(self.receptance(blends[1])) * y, state
