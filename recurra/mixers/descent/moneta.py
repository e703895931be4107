"""Moneta: a memory network whose errors count by a power of their own, and whose weights are kept to a norm."""

from recurra.mixers.base import OnePart
from recurra.ops.descent import retention
from recurra.parts.learner import Learner


class Moneta(OnePart):
    r"""A memory that is a small network in training, for which large errors count more, and its weights' norm little.

    .. math::
        A_t = \alpha_t A_{t-1} - \eta_t \nabla \tfrac1p \lVert M_{t'}(k_t) - v_t \rVert_p^p \qquad
        W = A / \lVert A \rVert_q^{q-2} \qquad \alpha_t, \eta_t = \sigma(\cdot), \eta\, \sigma(\cdot)

    M(x) = x + norm(W_2 gelu(W_1 x)), whose layer norm is the mixer's own and not trained with the memory; q, k, v are
    linear in x, then a short convolution with SiLU, q and k of length one (1e-6 inside the root); what comes of
    :math:`\sigma` is one number a head, of a linear map of x; what is read has an RMSNorm of each head, a sigmoid gate
    and a linear map. All gradients of a chunk of C steps are taken at its start, :math:`t'`.
    Source: Behrouz et al. 2025 (Miras), https://arxiv.org/abs/2504.13173. As there, weights are normalised where a
    chunk ends; within it the weights of its start move without. Unlike there the loss is over p; its absolute value
    is :math:`\sqrt{e^2 + 10^{-6}}`, of which the gradient is exact; :math:`\alpha` and :math:`\eta` are one a head, not
    one a channel; and the rate has a bound. No code of the authors is public, so that this is their equations alone.

    State: the convolution's past `(B, conv_size - 1, 3 * width)`, then of P weights a head A at the
    chunk's start and how far they have moved since, each `(B, H, P)`, how much of the start is kept `(B, H)`, and the
    steps of the chunk `(B)`; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        chunk: C: part of what is computed, not only of how fast.
        rate: :math:`\eta`, the most that a step's learning rate can be, above 0.
        power: p, at least 1.
        norm: q, at least 2.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`, `depth`, `expand` or `chunk` is less than 1, `rate` is not greater
            than 0, `power` is less than 1 or `norm` less than 2.
    """

    part = "learner"

    undecayed = ("learner.answer",)

    def __init__(
        self,
        width: int,
        *,
        heads: int = 1,
        depth: int = 2,
        expand: int = 4,
        chunk: int = 16,
        rate: float = 0.003,
        power: float = 3.0,
        norm: float = 4.0,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size,
            normalised=True, power=power, mirror=retention.lq(norm),
        )  # fmt: skip
