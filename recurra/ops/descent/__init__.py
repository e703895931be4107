"""Memory that learns: the state is the weights of a small network, and every step is a step of its training.

What the network is asked (the attentional bias), how it forgets (the retention) and how it is trained (gradients,
momentum, mini-batches) are the four choices of Miras; TTT, Titans, Moneta, Yaad and Memora are settings of this record.
"""

from typing import NamedTuple

import torch

from recurra.ops.descent.net import Net as Net
from recurra.ops.descent.retention import Mirror
from recurra.shapes import Bool, Float, Tensor

DescentState = tuple[Tensor, ...]


class Descent(NamedTuple):
    r"""A network that is trained to answer keys with values, and asked queries.

    In a chunk of C steps, of which step t is the i-th, all gradients are taken at the weights of the chunk's start,

    .. math::
        g_t = \nabla_W \ell\bigl(f_{\phi(A)}(k_t), v_t\bigr) \qquad
        \frac{\partial \ell}{\partial f} = e\, (e^2 + \epsilon)^{(p-2)/2}, \quad
        e = \min(\max(f_{\phi(A)}(k_t) - v_t, -\delta_t), \delta_t)

    .. math::
        S_t = \eta_t S_{t-1} - \theta_t g_t \qquad X_t = \alpha_t X_{t-1} + S_t \qquad c_t = \alpha_t c_{t-1} \qquad
        o_t = f_{W_t}(q_t)

    .. math::
        W_t = c_t\, \phi(A) + \tau_i X_t \;\; (i < C) \qquad
        A \leftarrow c_t A + \tau_C X_t, \; W_t = \phi(A), \; X \leftarrow 0, \; c \leftarrow 1 \;\; (i = C)

    so that with the identity for :math:`\phi` and :math:`\tau = 1` W moves by :math:`\alpha_t W_{t-1} + S_t`. Without
    momentum :math:`S_t = -\theta_t g_t`. For p = 2, without a threshold, :math:`\ell` is half the squared error.
    A reset begins with the initial weights, and with a chunk; the chunk's length is part of the function.

    State: A `(B, H, P)`, X `(B, H, P)`, c `(B, H)`, the steps so far of the chunk `(B)` (a float, as all of the state
    is) and, with momentum, S `(B, H, P)`, where P counts the weights.
    """

    query: Float[Tensor, "B T H K"]
    key: Float[Tensor, "B T H K"]
    value: Float[Tensor, "B T H V"]
    rate: Float[Tensor, "B T H"]  # theta
    initial: Float[Tensor, "H P"]  # A at a sequence's start
    net: Net
    chunk: int  # C
    log_decay: Float[Tensor, "B T H"] | None = None  # log alpha <= 0
    log_momentum: Float[Tensor, "B T H"] | None = None  # log eta <= 0
    norm: Float[Tensor, "2 H V"] | None = None  # scale and shift, for a net that is normalised
    scale: Float[Tensor, " C"] | None = None  # tau
    power: float = 2.0  # p
    threshold: Float[Tensor, "B T H"] | None = None  # delta > 0
    mirror: Mirror | None = None  # phi, of each layer's matrix
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.value

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Descent":
        """The same record, told which steps did not happen: they do not bring the chunk nearer to its end."""
        return self._replace(valid=valid)

    def weights(self, dual: Float[Tensor, "B H P"]) -> list[Tensor]:
        """What the network is made of, layer by layer, where A is `dual`."""
        layers = self.net.layers(dual)
        if self.mirror is None:
            return layers
        layers = [self.mirror.weights(layer) for layer in layers]
        # a layer norm takes away what all of an answer's features share: here, where nothing was rounded to its size
        return [*layers[:-1], layers[-1] - layers[-1].mean(-1, keepdim=True)] if self.net.normalised else layers

    def settled(self, dual: Float[Tensor, "B H P"]) -> Float[Tensor, "B H P"]:
        """The sums that have the same weights and are kept where a chunk ends."""
        if self.mirror is None:
            return dual
        return torch.cat([self.mirror.settled(layer).flatten(-2) for layer in self.net.layers(dual)], -1)
