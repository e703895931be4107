"""Memora: a memory network whose weights are probabilities, kept near what they were by relative entropy."""

from recurra.mixers.base import OnePart
from recurra.ops.descent import retention
from recurra.parts.learner import Learner


class Memora(OnePart):
    r"""A memory that is a small network in training, whose weights are positive and share out a constant sum.

    .. math::
        W_t = c \operatorname{softmax}\bigl(\alpha_t \log W_{t-1} - \eta_t \nabla \tfrac12 \lVert M_{t'}(k_t) - v_t
        \rVert^2\bigr) \qquad \alpha_t, \eta_t = \sigma(\cdot), \eta\, \sigma(\cdot)

    with the softmax over all inputs of an output, and c their number, which the paper leaves open: the mean weight is
    one. A softmax forgets what is added to all of its inputs, so the logarithms are added up without any:
    :math:`A_t = \alpha_t A_{t-1} - \eta_t \nabla, W_t = c \operatorname{softmax}(A_t)`, exactly. Where a chunk ends,
    that is what W is; within it the weights of its start move linearly, as in the paper.
    M(x) = x + norm(W_2 gelu(W_1 x)), whose layer norm is the mixer's own and not trained with the memory; q, k, v are
    linear in x, then a short convolution with SiLU, q and k of length one (1e-6 inside the root); what comes of
    :math:`\sigma` is one number a head, of a linear map of x; what is read has an RMSNorm of each head, a sigmoid gate
    and a linear map. All gradients of a chunk of C steps are taken at its start, :math:`t'`.
    Source: Behrouz et al. 2025 (Miras), https://arxiv.org/abs/2504.13173. Unlike there the first step of a chunk is
    linear too; the loss is halved; :math:`\alpha` and :math:`\eta` are one a head, not one a channel; the rate has a
    bound; and the layer norm adds 1e-2 to the variance, as the answers of weights that share out a sum are much alike,
    and less would make of their rounding what is read. No code of the authors is public.

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
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`, `depth`, `expand` or `chunk` is less than 1, or `rate` is not
            greater than 0.
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
        rate: float = 0.01,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size,
            normalised=True, epsilon=1e-2, mirror=retention.kl(),
        )  # fmt: skip
