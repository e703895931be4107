"""The unitary network against complex numbers in numpy: no package has it.

There the matrix is never written out: each step goes through the chain of diagonals, mirrors and transforms itself.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.cell.urnn import REST, URNN

D = 12


def turned(operator, h):
    """W h, factor by factor, for rows of complex units."""
    angles = operator.angles.detach().numpy()
    mirrors = [pair[:, 0] + 1j * pair[:, 1] for pair in operator.mirrors.detach().numpy()]

    def mirror(v, z):
        return z - 2 / np.vdot(v, v).real * np.outer(z @ v.conj(), v)

    z = np.fft.fft(np.exp(1j * angles[0]) * h, norm="ortho")
    z = np.exp(1j * angles[1]) * mirror(mirrors[0], z)[:, operator.order.numpy()]
    return np.exp(1j * angles[2]) * mirror(mirrors[1], np.fft.ifft(z, norm="ortho"))


def test_equals_complex_steps():
    mixer = URNN(D).double()
    with torch.no_grad():
        mixer.bias.normal_()
    x = torch.randn(3, 17, D, dtype=torch.float64)
    start = torch.randn(3, D, dtype=torch.float64)
    first, state = mixer(x[:, :5], (start,))
    second, (last,) = mixer(x[:, 5:], state)
    y = torch.cat([first, second], 1)
    real, imaginary = mixer.input_weight.detach().numpy().reshape(2, D // 2, D)
    h, bias = start.numpy()[:, : D // 2] + 1j * start.numpy()[:, D // 2 :], mixer.bias.detach().numpy()
    for t in range(17):
        z = x[:, t].numpy() @ (real + 1j * imaginary).T + turned(mixer.operator, h)
        length = np.sqrt(np.abs(z) ** 2 + REST)
        h = np.maximum(length + bias, 0) * z / length
        assert_close(y[:, t].detach().numpy(), np.concatenate([h.real, h.imag], 1), rtol=1e-11, atol=1e-11)
    assert_close(last, y[:, -1])


def test_without_a_bias_nothing_is_lost():
    """A thousand steps neither shorten the state nor its gradient."""
    mixer = URNN(D).double()
    with torch.no_grad():
        mixer.bias.zero_()
    start = torch.randn(2, D, dtype=torch.float64, requires_grad=True)
    _, (last,) = mixer(torch.zeros(2, 1000, D, dtype=torch.float64), (start,))
    assert_close(last.norm(dim=1), start.norm(dim=1), rtol=1e-10, atol=0)
    weight = torch.randn_like(last)
    (grad,) = torch.autograd.grad((last * weight).sum(), start)
    assert_close(grad.norm(dim=1), weight.norm(dim=1), rtol=1e-8, atol=0)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width is 7: it must be a multiple of a complex number's parts, which is 2"):
        URNN(7)
