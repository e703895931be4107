"""Miras: a memory in training by any of its four choices, of which the delta rule, Titans and others are some."""

from collections.abc import Callable

from recurra.checks import one_of
from recurra.mixers.base import OnePart
from recurra.ops.descent import retention
from recurra.parts.learner import Learner

RETENTIONS: dict[str, Callable[[float], retention.Mirror | None]] = {
    "decay": lambda strength: None,
    "lq": retention.lq,
    "kl": lambda strength: retention.kl(),
    "elastic": retention.elastic,
}


class Miras(OnePart):
    r"""A memory in training, put together of four choices: its network, its loss, how it forgets, how it learns.

    .. math::
        S_t = \mu_t S_{t-1} - \eta_t \nabla \ell(M_{t'}(k_t), v_t) \qquad A_t = \alpha_t A_{t-1} + S_t \qquad
        W = \phi(A)

    The network: one layer is a matrix, two and more are an MLP with GELU; `normalised`, M(x) = x + norm(...). The
    loss: :math:`|e|^p / p`, and Huber's with a threshold :math:`\delta_t` that the input sets. The retention
    :math:`\phi`: "decay", W = A; "lq", :math:`A / \lVert A \rVert_q^{q-2}`; "kl", a softmax over the inputs of each
    output, times their number; "elastic", soft thresholding. The algorithm: gradients at the start t' of each chunk of
    C steps, with momentum or without. Behrouz et al. 2025, https://arxiv.org/abs/2504.13173. A matrix in chunks of one
    step, of squared error, with neither momentum nor decay, is the delta rule. q, k, v are linear in x, then a short
    convolution with SiLU, q and k of length one; :math:`\eta, \alpha, \mu, \delta` are one a head; what is read has an
    RMSNorm of each head, a sigmoid gate and a linear map. Unlike the paper, whose maps are of what was added up in
    every step or of a chunk's last, :math:`\phi` is applied where a chunk ends and within it weights move linearly,
    for all of them; soft thresholding is that of the paper's running sums, without its smoothing.

    State: the convolution's past `(B, conv_size - 1, 3 * width)`, then of P weights a head A at the
    chunk's start and how far they have moved since, each `(B, H, P)`, how much of the start is kept `(B, H)`, the
    steps of the chunk `(B)`, and with momentum S `(B, H, P)`; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H); divides `width`.
        depth: layers of a memory's network.
        expand: how much wider it is between them than at its ends.
        chunk: C: part of what is computed, not only of how fast.
        rate: :math:`\eta`, the most that a step's learning rate can be, above 0.
        power: p, at least 1.
        threshold: whether the loss is Huber's beyond an error that the input sets.
        retention: "decay", "lq", "kl" or "elastic".
        strength: of the retention: q of "lq", at least 2; of "elastic", what a sum must pass to count, above 0.
        momentum: whether there is one.
        normalised: whether the network's answer is normalised and added to what it was asked.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: `heads` does not divide `width`, `depth`, `expand` or `chunk` is less than 1, `rate` is not greater
            than 0, `power` is less than 1, no such retention, or `strength` does not fit it.
    """

    part = "learner"

    undecayed = ("learner.answer",)

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        depth: int = 1,
        expand: int = 4,
        chunk: int = 16,
        rate: float = 0.01,
        power: float = 2.0,
        threshold: bool = True,
        retention: str = "elastic",
        strength: float = 0.01,
        momentum: bool = True,
        normalised: bool = False,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        one_of(RETENTIONS, retention=retention)
        self.learner = Learner(
            width, heads=heads, depth=depth, expand=expand, chunk=chunk, rate=rate, conv_size=conv_size,
            momentum=momentum, normalised=normalised, power=power, threshold=threshold,
            mirror=RETENTIONS[retention](strength),
        )  # fmt: skip
