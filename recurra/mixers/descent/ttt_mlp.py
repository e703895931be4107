"""TTT-MLP: the state is a network of two layers, trained on the sequence as it is read."""

from recurra.mixers.base import OnePart
from recurra.ops import Net
from recurra.parts.heads import divide
from recurra.parts.learner import sizes_of
from recurra.parts.test_time import TestTimeTraining


class TTTMLP(OnePart):
    r"""A memory that is a network of two layers, trained on every chunk of steps to give of a key what its value is.

    .. math::
        W_t = W_{t'} - \tau_i \sum_{s = t' + 1}^{t} \frac{\eta_s}{K} \nabla \tfrac12
        \lVert f_{t'}(k_s) - v_s \rVert^2 \qquad f(x) = x + \operatorname{norm}(\operatorname{net}(x)) \qquad
        z_t = f_t(q_t)

    .. math::
        \tau_i = \max(0, 1/i + \tau'_i) \qquad \eta_s = \eta\, \sigma(w^\top x_s + b) \qquad
        y_t = W_o \operatorname{norm}(z_t)

    .. math::
        \operatorname{net}(x) = W_2^\top \operatorname{gelu}(W_1^\top x + b_1) + b_2

    where :math:`t'` is the end of the chunk of C steps before, and i the place of t in its own. q, k, v are linear in
    x, q and k turned by rotary positions that begin anew with every chunk; the norm of f is a layer norm with scale and
    shift of each head's own; the last one is over all heads. Sun et al. 2024, https://arxiv.org/abs/2407.04620. As in
    the paper, of which this is the layer of its Transformer backbone: without the short convolution and gate that the
    layer has in its Mamba backbone.

    State: of P weights a head, biases among them, those at the chunk's start and the negative sum of gradients since,
    each `(B, H, P)`, ones `(B, H)`, since nothing of the start fades, and the steps of the chunk `(B)`; float32
    (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent networks (H); divides `width` into parts of even size.
        expand: how much wider the network is between its layers than at its ends.
        chunk: C: part of what is computed, not only of how fast.
        rate: :math:`\eta`, above 0.

    Raises:
        ValueError: `heads` does not divide `width` into parts of even size, `chunk` or `expand` is less than 1, or
            `rate` is not greater than 0.
    """

    part = "layer"

    undecayed = ("layer.answer",)

    def __init__(self, width: int, *, heads: int = 2, expand: int = 4, chunk: int = 16, rate: float = 0.1) -> None:
        super().__init__()
        size = divide(width, heads)
        net = Net(sizes_of(size, 2, expand), bias=True, approximate="tanh", normalised=True)
        self.layer = TestTimeTraining(width, heads=heads, net=net, chunk=chunk, rate=rate)
