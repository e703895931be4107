"""Recursive least squares: the best linear map of all that was seen so far, after every step, at one price a step.

FORCE and the recovery of dynamics from recordings are this and a choice of what to call the target.
"""

import torch

from recurra.shapes import Float, Tensor


class RecursiveLeastSquares:
    r"""A linear map that is at every moment the ridge regression of all the targets so far on all the features so far.

    .. math::
        K = P R^\top (1 + R P R^\top)^{-1} \qquad W \leftarrow W + (K (Y - R W^\top))^\top \qquad P \leftarrow P - K R P

    with :math:`R` the rows of features that come together and :math:`P_0 = 1 / \text{penalty}`; for one row that is
    :math:`k = P r, c = 1 / (1 + r^\top k), P \leftarrow P - c\, k k^\top`. Numbers are float64: the error of a
    difference of matrices grows with every step.

    Args:
        features: of a row (N).
        outputs: of the map (M).
        penalty: of the squares of W's distance from where it started.
        start: the map before anything was seen, `(M, N)`; None: zero.

    Raises:
        ValueError: the penalty is not greater than 0.
    """

    def __init__(self, features: int, outputs: int, *, penalty: float = 1.0, start: Tensor | None = None) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty is {penalty}: it must be greater than 0")
        zero = torch.zeros(outputs, features, dtype=torch.float64)
        self.weight = zero if start is None else start.detach().double().clone()
        self.inverse = torch.eye(features, dtype=torch.float64) / penalty

    @torch.no_grad()
    def update(self, features: Float[Tensor, "B N"], targets: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """See rows of features and targets. Returns the errors (target - read) of the map before it saw them."""
        rows = features.double()
        errors = targets.double() - rows @ self.weight.T
        spread = self.inverse @ rows.T
        if len(rows) == 1:
            # the same without a solve
            gain = spread / (1 + rows @ spread)
        else:
            within = torch.eye(len(rows), dtype=torch.float64) + rows @ spread
            gain = torch.linalg.solve(within, spread.T).T
        self.weight = self.weight + (gain @ errors).T
        # symmetric by construction, so that rounding cannot take it apart
        inverse = self.inverse - gain @ spread.T
        self.inverse = (inverse + inverse.T) / 2
        return errors
