"""Hyena: long filters and gates in turn."""

import torch
from torch import nn

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan
from recurra.parts.conv import ShortConvolution
from recurra.parts.filters import ImplicitFilters, ModalFilters
from recurra.shapes import Float, State, Tensor


class Hyena(Mixer):
    r"""Gates made of the input, and between them filters so long that each step hears all steps of a whole text.

    .. math::
        (g^0, \ldots, g^{I}, v)_t = \operatorname{conv}(W x)_t + \beta
        \qquad
        v \leftarrow k^i * (g^i \odot v) + d^i \odot g^i \odot v \quad (i = I, \ldots, 1)
        \qquad
        y_t = W_o (g^0_t \odot v_t) + \beta_o

    with I = `order` - 1 filters k for every feature and a short convolution in front, Poli et al. 2023,
    https://arxiv.org/abs/2302.10866. A filter's taps are the values of a small net at their positions, as fractions of
    `length`: the filter is tied to that many taps, the sequence is not, and what is longer ago than they reach is
    forgotten. Unlike the paper the taps do not depend on how long the sequence is. The state is the last inputs, many
    but a constant number, and every call makes all taps anew: to stream for long, distill.

    With `units` the filters are modes, :math:`k_i = \operatorname{Re} \sum_n c_n \lambda_n^i`, and the layer a
    recurrence with a small state: Massaroli et al. 2023, https://arxiv.org/abs/2310.18780. `distill` makes one of the
    other and says how far its filters are off; unlike the paper it fits by the Hankel matrix's singular vectors and
    least squares and not by gradient descent. State: the short convolution's last inputs `(B, J-1, (order+1) D)`, then
    for each filter its last inputs `(B, L-1, D)`, float32, or its modes `(B, D, N)`, complex64.

    Args:
        width: features in and out (D).
        order: gates, the last one included; filters are one fewer.
        length: taps of a filter (L), in steps; it has no meaning with `units`.
        units: None, or modes of a filter (N) in its place.
        conv: inputs that the short convolution sees (J).

    Raises:
        ValueError: `order` or `length` is less than 2, or `units` less than 1.
    """

    undecayed = ("filters.log_rate", "filters.frequency", "skip")

    def __init__(
        self, width: int, *, order: int = 2, length: int = 1024, units: int | None = None, conv: int = 3
    ) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(f"order is {order}: there must be at least 2 gates for a filter to be between")
        count = order - 1
        self.inputs = nn.Linear(width, (order + 1) * width)
        self.conv = ShortConvolution((order + 1) * width, size=conv, silu=False)
        self.filters = ImplicitFilters(width, count, length) if units is None else ModalFilters(width, count, units)
        self.skip = nn.Parameter(torch.randn(count, width))
        self.out = nn.Linear(width, width)
        self.scan = Scan()

    def initial_state(self, batch: int) -> State:
        return self.conv.initial_state(batch), *self.filters.initial_state(batch)

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        past, *states = state
        x, past = self.conv(self.inputs(x), past, clock)
        first, *gates, value = x.chunk(len(self.skip) + 2, -1)
        ends = []
        for gate, record, skip, start in zip(reversed(gates), self.filters.records(), self.skip, states, strict=True):
            value = gate * value
            read, end = self.scan(record(value), start, clock)
            value = read + skip * value
            ends.append(end)
        return self.out(first * value), (past, *ends)

    @torch.no_grad()
    def distill(self, units: int) -> tuple["Hyena", Float[Tensor, "I D"]]:
        """The same layer with filters of `units` modes, and how far each filter is off, as a part of it.

        Raises:
            ValueError: this layer's filters are modes already.
        """
        if not isinstance(self.filters, ImplicitFilters):
            raise ValueError("the filters of this layer are modes already: there is nothing to distill")
        config = {**self.config, "units": units}
        other = Hyena(config.pop("width"), **config).to(self.skip)
        own = {name: p for name, p in self.state_dict().items() if not name.startswith("filters.")}
        other.load_state_dict(own, strict=False)
        assert isinstance(other, Hyena) and isinstance(other.filters, ModalFilters)
        return other, other.filters.imitate(self.filters.kernels())
