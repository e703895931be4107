r"""From what was added up to weights: the maps :math:`\phi` of `Descent`, each of one layer's matrix `(*B, I, O)`.

A distance to the last weights that is not Euclidean makes a step of gradient descent one of mirror descent: gradients
are added up, decay and all, on one side of a map, and the weights are on the other. Behrouz et al. 2025,
https://arxiv.org/abs/2504.13173.
"""

from recurra.shapes import Float, Tensor

EPSILON = 1e-6


def lq(dual: Float[Tensor, "*B I O"], *, q: float) -> Float[Tensor, "*B I O"]:
    r""":math:`A / \lVert A \rVert_q^{q-2}`, the norm over all of the matrix and with 1e-6 inside the root."""
    return dual * ((dual.square() + EPSILON) ** (q / 2)).sum((-2, -1), keepdim=True) ** (2 / q - 1)


def kl(dual: Float[Tensor, "*B I O"]) -> Float[Tensor, "*B I O"]:
    """Positive weights: the softmax over the inputs of each output, times how many there are, so that 1 is the mean.

    As the softmax of a logarithm of a softmax is the softmax itself, adding up logarithms needs no normalisation.
    """
    return dual.shape[-2] * dual.softmax(-2)


def elastic(dual: Float[Tensor, "*B I O"], *, threshold: float) -> Float[Tensor, "*B I O"]:
    """Weights that are zero until enough was added up: soft thresholding."""
    return dual - dual.clamp(-threshold, threshold)
