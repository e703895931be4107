"""What the layers of test-time training share: all but the network that is trained."""

import torch
from torch import nn

from recurra.checks import at_least, greater_than
from recurra.clock import Clock
from recurra.ops import Descent, Net, Scan
from recurra.parts.learner import fresh
from recurra.parts.rotary import count, rotate, turns
from recurra.shapes import Float, Tensor, wide


class TestTimeTraining(nn.Module):
    r"""Networks, one a head, trained to give of a key what its value differs by, and asked queries.

    .. math::
        W_t = W_{t'} - \tau_i \sum_{s = t' + 1}^{t} \frac{\eta_s}{K} \nabla \tfrac12 \lVert f_{t'}(k_s) - v_s \rVert^2
        \qquad f(x) = x + \operatorname{norm}(\operatorname{net}(x)) \qquad
        \tau_i = \max(0, 1/i + \tau'_i) \qquad \eta_s = \eta\, \sigma(w^\top x_s + b)

    State: that of `Descent`.

    Args:
        width: features in and out (D).
        heads: networks (H).
        net: of each.
        chunk: steps whose gradients are taken at one place (C).
        rate: :math:`\eta`.

    Raises:
        ValueError: `chunk` is less than 1, `rate` is not greater than 0, or a head's features are no pairs.
    """

    __test__ = False  # no test, whatever its name

    def __init__(self, width: int, *, heads: int, net: Net, chunk: int, rate: float) -> None:
        super().__init__()
        at_least(1, chunk=chunk)
        greater_than(0, rate=rate)
        size = net.sizes[0]
        if size % 2:
            raise ValueError(f"a head has {size} features: they are turned in pairs, so it must be an even number")
        self.heads, self.net, self.chunk, self.rate = heads, net, chunk, rate
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, heads)
        # each weight with a deviation of 0.02, each bias, the last row of a layer's, zero
        layers = (torch.cat([0.02 * torch.randn(heads, i - 1, o), torch.zeros(heads, 1, o)], 1) for i, o in net.shapes)
        self.initial = nn.Parameter(torch.cat([layer.flatten(1) for layer in layers], -1))
        ones = torch.ones(heads, size)
        self.answer = nn.Parameter(torch.stack([ones, 0 * ones]))
        self.place = nn.Parameter(torch.zeros(chunk))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)
        self.scan = Scan()
        nn.init.normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """The initial weights, untouched."""
        return fresh(self.initial, batch)

    def forward(
        self, x: Float[Tensor, "B T D"], state: tuple[Tensor, ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
        """Project, turn by the place in the chunk, learn and ask, normalise."""
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        positions, _ = count(state[3].long(), x.shape[1], clock)
        size = key.shape[-1]
        # the slowest of P angles turns 10000^((P-1)/P) times slower than the first
        angles = turns(positions % self.chunk, size, 10000.0 ** (1 - 2 / size))
        real = wide(x, self.place)
        scale = 1 / torch.arange(1, self.chunk + 1, dtype=real, device=x.device) + self.place.to(real)
        rate = self.rate / size * self.gate(x).to(real).sigmoid()
        record = Descent(
            rotate(query, *angles), rotate(key, *angles), value, rate, self.initial, self.net, self.chunk,
            norm=self.answer, scale=scale.clamp(min=0),
        )  # fmt: skip
        read, state = self.scan(record, state, clock)
        return self.out(self.norm(read.flatten(-2).to(x.dtype))), state
