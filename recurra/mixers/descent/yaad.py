"""Yaad: a memory network that large errors, such as those of outliers, do not pull further than a threshold."""

from recurra.mixers.base import OnePart
from recurra.parts.learner import Learner


class Yaad(OnePart):
    r"""A memory that is a small network in training, for which an error counts only up to a threshold.

    .. math::
        W_t = \alpha_t W_{t-1} - \eta_t \nabla \sum_i H_{\delta_t}\bigl((M_{t'}(k_t) - v_t)_i\bigr) \qquad
        H_\delta(e) = \begin{cases} e^2 / 2 & |e| \le \delta \\ \delta (|e| - \delta / 2) & |e| > \delta \end{cases}

    .. math::
        \alpha_t, \eta_t, \delta_t = \sigma(\cdot), \eta\, \sigma(\cdot), \operatorname{softplus}(\cdot)

    M(x) = x + norm(W_2 gelu(W_1 x)), whose layer norm is the mixer's own and not trained with the memory; q, k, v are
    linear in x, then a short convolution with SiLU, q and k of length one (1e-6 inside the root); what comes of
    :math:`\sigma` is one number a head, of a linear map of x; what is read has an RMSNorm of each head, a sigmoid gate
    and a linear map. All gradients of a chunk of C steps are taken at its start, :math:`t'`.
    Source: Behrouz et al. 2025 (Miras), https://arxiv.org/abs/2504.13173. Unlike their equation of Yaad, in which the
    length of the whole error decides for all of its channels between the gradients of :math:`\ell_2` and :math:`\delta
    \ell_1`, so that it jumps, each channel's error has the threshold: the first of their Huber losses. :math:`\alpha`,
    :math:`\eta` and :math:`\delta` are one a head, not one a channel, and the rate has a bound. No code of the authors
    is public.

    State: the convolution's past `(B, conv_size - 1, 3 * width)`, then of P weights a head those at the
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
            normalised=True, threshold=True,
        )  # fmt: skip
