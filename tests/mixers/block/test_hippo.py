"""HiPPO's memories: LegT against SciPy's (tests/oracles/make_hippo.py), LegS against the polynomials it promises."""

import numpy as np
import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.block.hippo import HiPPO
from recurra.parts.hippo import delay, legs, legt

_, NUMBERS = numbers("hippo")


def _open(mixer):
    """What feeds the memory is the first feature alone."""
    with torch.no_grad():
        mixer.feed.weight.zero_()[:, 0] = 1
        mixer.feed_hidden.zero_()
    return mixer


def _fed(signal):
    x = torch.randn(1, len(signal), 8, dtype=torch.float64)
    x[0, :, 0] = signal
    return x


def _projection(signal, times, order):
    """The closest polynomial of a signal that is constant between times: its integrals, piece by piece."""
    edges = np.concatenate([[0.0], np.cumsum(times)])
    edges = 2 * edges / edges[-1] - 1
    coefficients = []
    for n in range(order):
        integral = np.polynomial.legendre.Legendre.basis(n).integ()(edges)
        coefficients.append((2 * n + 1) ** 0.5 / 2 * (np.diff(integral) * signal).sum())
    return torch.tensor(coefficients, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_legs_is_the_projection_of_all_of_the_past(steps):
    mixer = _open(HiPPO(8, order=6).double())
    signal = NUMBERS["inputs"][:steps]
    _, (_, memory, elapsed) = mixer(_fed(signal))
    assert_close(memory[0, 0], _projection(signal.numpy(), np.ones(steps), 6), rtol=1e-9, atol=1e-9)
    assert_close(memory[0, 0, 0], signal.mean(), rtol=1e-12, atol=1e-12)
    assert elapsed.item() == steps


def test_legs_is_the_projection_at_irregular_times_too():
    mixer = _open(HiPPO(8, order=6).double())
    times = 0.1 + 3 * torch.rand(40, dtype=torch.float64)
    _, (_, memory, elapsed) = mixer(_fed(NUMBERS["inputs"]), None, Clock(dt=times[None]))
    assert_close(memory[0, 0], _projection(NUMBERS["inputs"].numpy(), times.numpy(), 6), rtol=1e-9, atol=1e-9)
    assert_close(elapsed.sum(), times.sum())


def test_legs_knows_no_time_scale():
    mixer = HiPPO(8, order=6).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64)
    slow, _ = mixer(x, None, Clock(dt=torch.full((1, 20), 7.0, dtype=torch.float64)))
    assert_close(slow, mixer(x)[0])


def test_legt_equals_scipys():
    mixer = _open(HiPPO(8, measure="legt", order=6, window=7.0).double())
    for steps in (1, 2, 40):
        _, (_, memory) = mixer(_fed(NUMBERS["inputs"][:steps]))
        assert_close(memory[0, 0], NUMBERS["legt"][steps - 1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_irregular_steps_are_fine_regular_ones(measure):
    mixer = _open(HiPPO(8, order=6, measure=measure).double())
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    times = torch.tensor([1, 3, 2, 5, 1, 1, 4])
    _, (_, coarse, *_) = mixer(x, None, Clock(dt=times.double().expand(2, -1)))
    _, (_, fine, *_) = mixer(x.repeat_interleave(times, 1))
    assert_close(coarse, fine)


def test_the_cell_is_the_papers():
    mixer = HiPPO(8, order=6, channels=2).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    y, _ = mixer(x)
    hidden, state = torch.zeros(8, dtype=torch.float64), None
    for t in range(9):
        _, state = mixer(x[:, t : t + 1], state)
        memory = state[1].flatten()
        gate, new = (mixer.drive(x[0, t]) + mixer.recur_memory @ memory).chunk(2)
        hidden = (1 - gate.sigmoid()) * hidden + gate.sigmoid() * new.tanh()
        assert_close(y[0, t], hidden)


def test_the_matrices_are_the_papers():
    for order in (1, 6):
        index = torch.arange(order, dtype=torch.float64)
        root = (2 * index + 1).sqrt()
        assert_close(-legs(order)[:, 0], root)
        assert_close(-legt(order)[:, 0], root)
        assert_close(-delay(order)[:, 0], (2 * index + 1) * (-1) ** index)
    assert_close(legs(6), NUMBERS["legs"])


def test_a_second_sequence_starts_its_own_time():
    mixer = HiPPO(8, order=6).double()
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    reset = torch.zeros(1, 12, dtype=torch.bool)
    reset[:, [3, 7]] = True
    _, (_, _, elapsed) = mixer(x, None, Clock(reset))
    assert elapsed.item() == 5


def test_a_row_of_no_steps_ruins_no_gradient():
    mixer = HiPPO(8, order=6).double()
    y, _ = mixer(torch.randn(2, 5, 8, dtype=torch.float64), None, Clock.lengths([0, 5]))
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y.sum(), list(mixer.parameters())))


@pytest.mark.parametrize(
    "wrong",
    [{"measure": "lagt"}, {"order": 0}, {"channels": 0}, {"window": 5.0}, {"window": -1.0, "measure": "legt"}],
)
def test_what_cannot_be_is_refused(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"{name} is"):
        HiPPO(8, **wrong)
