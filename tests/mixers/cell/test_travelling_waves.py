"""Travelling waves against the paper's own lattice, written out here column by column, and Fibonacci's numbers.

There is no code of the authors' to run: the lattice holds what was and weighs it at the boundary, ours weighs it as it
enters, so the two are derived apart.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.travelling_waves import TravellingWaves

D, K = 8, 4


def _mixer(nonlinearity):
    mixer = TravellingWaves(D, columns=K, nonlinearity=nonlinearity).double()
    with torch.no_grad():
        mixer.boundary.add_(0.1 * torch.randn(K, D, D))
    return mixer


@pytest.mark.parametrize("nonlinearity", ["tanh", "linear"])
@pytest.mark.parametrize("way", ["native", "loop"])
def test_equals_a_lattice_whose_columns_shift(nonlinearity, way):
    mixer = _mixer(nonlinearity)
    x = torch.randn(2, 17, D, dtype=torch.float64)
    with use(way):
        first, state = mixer(x[:, :7])
        second, _ = mixer(x[:, 7:], state)
    columns, want = [torch.zeros(2, D, dtype=torch.float64)] * K, []
    for now in mixer.input(x).unbind(1):
        new = now + sum(h @ f.T for h, f in zip(columns, mixer.boundary, strict=True))
        new = new.tanh() if nonlinearity == "tanh" else new
        # the oldest leaves, every other moves on
        columns = [new, *columns[:-1]]
        want.append(new)
    assert_close(torch.cat([first, second], 1), torch.stack(want, 1), rtol=1e-12, atol=1e-12)


def test_it_counts_as_fibonacci_did():
    """The sum of the last K numbers, as the paper has it: exact."""
    mixer = TravellingWaves(D, columns=K, nonlinearity="linear").double()
    with torch.no_grad():
        mixer.boundary.copy_(torch.eye(D).expand(K, D, D))
        mixer.input.weight.copy_(torch.eye(D))
        mixer.input.bias.zero_()
    x = torch.zeros(1, 40, D, dtype=torch.float64)
    x[:, 0] = torch.arange(1.0, D + 1)
    y, _ = mixer(x)
    series = [1]
    while len(series) < 40:
        series.append(sum(series[-K:]))
    assert_close(y[0], torch.tensor(series, dtype=torch.float64)[:, None] * x[0, :1], rtol=0, atol=0)


def test_what_enters_comes_back_after_a_lap():
    """Where it starts: K things at once, none in the way of another."""
    mixer = TravellingWaves(D, columns=K, nonlinearity="linear").double()
    with torch.no_grad():
        mixer.input.bias.zero_()
    x = torch.zeros(1, 4 * K, D, dtype=torch.float64)
    x[:, :K] = torch.randn(K, D)
    y, _ = mixer(x)
    assert_close(y[:, :K].repeat(1, 4, 1), y, rtol=0, atol=0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="columns is 0"):
        TravellingWaves(D, columns=0)
    with pytest.raises(ValueError, match="nonlinearity is 'relu': it must be one of tanh, linear"):
        TravellingWaves(D, nonlinearity="relu")
