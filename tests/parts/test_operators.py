"""Operators that keep lengths, against LAPACK, against torch-eunn's numbers, and against the identity."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.parts.operators import FourierUnitary, Reflections, Rotations

BUILDS = {
    "reflections": lambda n: Reflections(n, n - 1),
    "one reflection": lambda n: Reflections(n, 1),
    "rotations": lambda n: Rotations(n, n),
    "one layer of rotations": lambda n: Rotations(n, 1),
    "fourier": lambda n: FourierUnitary(n // 2),
}


@pytest.mark.parametrize("units", [2, 8, 30])
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_lengths_are_kept(build, units):
    operator = build(units)
    matrix = operator.double()()
    assert_close(matrix.T @ matrix, torch.eye(units, dtype=torch.float64), rtol=0, atol=1e-13)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(operator(), matrix, rtol=0, atol=0)
    assert operator.bfloat16()().dtype == torch.float32


def test_reflections_are_lapacks():
    operator = Reflections(9, 6).double()
    with torch.no_grad():
        operator.mirrors.mul_(1 + torch.rand_like(operator.mirrors))
    mirrors = operator.mirrors.tril()
    lapack = mirrors / mirrors.diagonal()
    scale = 2 / lapack.square().sum(0)
    want = torch.linalg.householder_product(torch.cat([lapack, torch.zeros(9, 3).double()], 1), scale)
    assert_close(operator(), want)


def test_a_mirror_of_zeros_does_nothing():
    one, two = Reflections(7, 3).double(), Reflections(7, 2).double()
    with torch.no_grad():
        one.mirrors[:, 2] = 0
        two.mirrors.copy_(one.mirrors[:, :2])
    matrix = one()
    assert_close(matrix, two())
    matrix.sin().sum().backward()
    assert one.mirrors.grad is not None and torch.isfinite(one.mirrors.grad).all()
    fourier = FourierUnitary(4)
    with torch.no_grad():
        fourier.mirrors.zero_()
    assert torch.isfinite(fourier()).all()


def test_rotations_equal_torch_eunn():
    _, stored = numbers("classical", "rotations.")
    operator = Rotations(8, 4).double()
    with torch.no_grad():
        for layer, angles in enumerate(operator.angles):
            # theirs turns the other way
            angles.copy_(-stored["angles"][: len(angles), layer])
    assert_close(operator(), stored["matrix"])


def test_one_rotation_by_hand():
    operator = Rotations(3, 2)
    with torch.no_grad():
        operator.angles[0].fill_(torch.pi / 2)
        operator.angles[1].fill_(0)
    assert_close(operator(), torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))


def test_complex_matrices_have_the_form_of_complex_ones():
    matrix = FourierUnitary(5)()
    one, two = matrix.chunk(2)
    assert_close(one[:, :5], two[:, 5:])
    assert_close(one[:, 5:], -two[:, :5])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="there are 0 units: there must be at least 1"):
        FourierUnitary(0)
