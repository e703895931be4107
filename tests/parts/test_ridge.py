"""Ridge regression against the normal equations with a column of ones, by NumPy."""

import numpy as np
import pytest
import torch

from recurra.parts.ridge import ridge


@pytest.mark.parametrize("penalty", [1e-8, 0.3, 50.0])
@pytest.mark.parametrize("samples", [4, 40])
def test_equals_the_normal_equations(penalty, samples):
    features = torch.randn(samples, 7, dtype=torch.float64) + 3
    targets = torch.randn(samples, 2, dtype=torch.float64) - 5
    weight, bias = ridge(features, targets, penalty)
    # another way: the penalty as rows of their own, the bias as a feature that none of them sees
    rows = np.block([[features.numpy(), np.ones((samples, 1))], [np.sqrt(penalty) * np.eye(7), np.zeros((7, 1))]])
    want, *_ = np.linalg.lstsq(rows, np.concatenate([targets.numpy(), np.zeros((7, 2))]), rcond=None)
    # fewer samples than features: the covariance has no more than the penalty to stand on
    tolerance = 1e-6 if samples < 7 and penalty < 1e-3 else 1e-10
    np.testing.assert_allclose(weight.numpy(), want[:-1].T, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(bias.numpy(), want[-1], rtol=tolerance, atol=tolerance)


def test_what_cannot_be_solved_is_refused():
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match="penalty is 0"):
        ridge(x, x, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        ridge(x[:0], x[:0], 1.0)
