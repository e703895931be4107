"""Titans' neural memory: a network that is trained on what it sees, with momentum, as it is asked about it."""

from recurra.mixers.base import OnePart
from recurra.parts.learner import Learner


class Titans(OnePart):
    r"""A memory that is a small network, trained at every step: what surprises it moves its weights, for a while.

    .. math::
        S_t = \eta_t S_{t-1} - \theta_t \nabla \tfrac12 \lVert M_{t'}(k_t) - v_t \rVert^2 \qquad
        M_t = (1 - \alpha_t) M_{t-1} + S_t

    .. math::
        y_t = W_o \bigl(\operatorname{norm}(M_t(q_t)) \odot \sigma(W_g x_t)\bigr) \qquad
        \theta_t, \alpha_t, \eta_t = \theta\, \sigma(\cdot), \sigma(\cdot), \sigma(\cdot)

    where :math:`M_{t'}` are the weights at the start of the chunk of C steps in which t is. M is of matrices with GELU
    between; q, k, v are linear in x, then a short convolution with SiLU, q and k of length one (1e-6 inside the root);
    one :math:`\theta, \alpha, \eta` a head, of linear maps of x; norm an RMSNorm of each head. The memory alone (LMM)
    of Behrouz et al. 2024, https://arxiv.org/abs/2501.00663. Unlike the paper there are several heads, heads begin by
    forgetting between 0.7 % and 0.03 % a step, the loss is halved and the rate has a bound, which keeps the training of
    the memory from diverging.

    State: the convolution's past `(B, conv_size - 1, 3 * width)`, then of P weights a head those at the
    chunk's start and how far they have moved since, each `(B, H, P)`, how much of the start is kept `(B, H)`, the
    steps of the chunk `(B)`, and the momentum `(B, H, P)`; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        chunk: C: part of what is computed, not only of how fast.
        rate: :math:`\theta`, the most that a step's learning rate can be, above 0.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`, `depth`, `expand` or `chunk` is less than 1, or `rate` is not
            greater than 0.
    """

    part = "learner"

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        depth: int = 2,
        expand: int = 4,
        chunk: int = 16,
        rate: float = 0.01,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size, momentum=True
        )
