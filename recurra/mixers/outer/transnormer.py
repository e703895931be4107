"""TransNormer: linear attention that is normalised instead of divided, with a fixed rate of forgetting a head."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Outer, Scan
from recurra.parts.heads import divide
from recurra.parts.lerp import place
from recurra.parts.norms import rms_gated
from recurra.shapes import Float, Tensor


class TransNormer(Mixer):
    r"""Linear attention without its denominator: what is read is brought to length by a norm, which cannot blow up.

    .. math::
        S_t = e^{-\lambda_h} S_{t-1} + \operatorname{swish}(k_t)\, v_t^\top \qquad
        y_t = W_o \bigl(u_t \odot \operatorname{rms}(S_t^\top \operatorname{swish}(q_t))\bigr) \qquad
        \lambda_h = 2^{-8h/H} (1 - \text{height})

    with q, k, v, u linear in x, heads h = 1 to H, and rms over all heads together with no weight. Source: Qin et al.
    2024 (TransNormerLLM, lightning attention), https://arxiv.org/abs/2307.14995, of Qin et al. 2022 (TransNormer),
    https://arxiv.org/abs/2210.10340, whose memory never fades: that is `height` = 1. The rates are those of the
    authors' code; the paper prints another power. Unlike the paper the first layer has no rotation of queries and
    keys, and, unlike TransNormer of 2022, no layers attend in blocks: a pattern of mixers says that.

    State: the memory S, `(B, H, K, V)`, float32 (float64 if the parameters are), K = V = width / heads.

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        height: where this layer stands, from 0, the first, which forgets fastest, to 1, the last, which never does;
            None: layer / (depth - 1).
        layer: which layer of the stack this is, from 0.
        depth: layers in the stack.

    Raises:
        ValueError: `heads` does not divide `width`, `height` is outside [0, 1], or `layer` is not one of `depth`.
    """

    def __init__(
        self, width: int, *, heads: int = 4, height: float | None = None, layer: int = 0, depth: int = 1
    ) -> None:
        super().__init__()
        up, _ = place(layer, depth)
        height = up if height is None else height
        if not 0 <= height <= 1:
            raise ValueError(f"height is {height}: it must lie between 0, the first layer, and 1, the last")
        self.heads, self.size, self.height, self.epsilon = heads, divide(width, heads), height, 1e-8
        self.project = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> Float[Tensor, "B H K V"]:
        """Nothing remembered: zeros."""
        return self.zeros(batch, self.heads, self.size, self.size)

    def mix(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B H K V"], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        """Project, remember, normalise, then gate."""
        both, value, gate = self.project(x).split([2 * x.shape[-1], x.shape[-1], x.shape[-1]], -1)
        query, key = F.silu(both).unflatten(-1, (2, self.heads, -1)).unbind(2)
        value = value.unflatten(-1, (self.heads, -1))
        # made from whole numbers at each call: a buffer would be rounded whenever the parameters' type is
        head = torch.arange(1, self.heads + 1, dtype=state.dtype, device=state.device)
        log_decay = ((self.height - 1) * torch.exp2(-8 * head / self.heads)).expand(key.shape[:3])
        read, state = self.scan(Outer(query, key, value, log_decay), state, clock)
        return self.out(rms_gated(read.flatten(-2), gate, self.epsilon)), state
