"""Ridge regression in closed form: how a read-out is found in one pass over what a fixed network did."""

import torch

from recurra.checks import greater_than
from recurra.shapes import Float, Tensor


@torch.no_grad()
def ridge(
    features: Float[Tensor, "S N"], targets: Float[Tensor, "S M"], penalty: float
) -> tuple[Float[Tensor, "M N"], Float[Tensor, " M"]]:
    r"""The weight and the bias of the linear map from features to targets that errs least.

    .. math::  \min_{W, b} \sum_s \lVert W f_s + b - t_s \rVert^2 + \lambda \lVert W \rVert^2

    Hoerl & Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634. The bias is not penalised. Solved in float64
    by the features' covariance.

    Args:
        features: f, one sample (S) a row.
        targets: t.
        penalty: :math:`\lambda`.

    Raises:
        ValueError: there are no samples, or `penalty` is not greater than 0.
    """
    greater_than(0, penalty=penalty)
    if len(features) == 0:
        raise ValueError("there is nothing to learn from: give at least one sample")
    features, targets = features.double(), targets.double()
    middle, aim = features.mean(0), targets.mean(0)
    features = features - middle
    covariance = features.T @ features
    covariance.diagonal().add_(penalty)
    weight = torch.cholesky_solve(features.T @ (targets - aim), torch.linalg.cholesky(covariance)).T
    return weight, aim - weight @ middle
