"""The orthogonal network by mirrors, one after the other: no package has it. Its matrix is tested against LAPACK's."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.mixers.cell.ornn import ORNN

D = 8


@pytest.mark.parametrize("reflections", [1, 4, 7])
def test_equals_mirrors_one_after_the_other(reflections):
    mixer = ORNN(D, reflections=reflections).double()
    with torch.no_grad():
        mixer.operator.mirrors.mul_(3.0)
        mixer.input.bias.normal_()
    x, h = torch.randn(2, 15, D, dtype=torch.float64), torch.randn(2, D, dtype=torch.float64)
    y, _ = mixer(x, (h,))
    for t in range(15):
        # the last mirror is the first that the state meets
        for u in mixer.operator.mirrors.tril().T.flip(0):
            h = h - 2 * torch.outer(h @ u, u) / (u @ u)
        h = F.leaky_relu(mixer.input(x[:, t]) + h, 0.1)
        assert_close(y[:, t], h)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="reflections is 8: it must be at least 1 and less than the units, 8"):
        ORNN(D, reflections=8)
