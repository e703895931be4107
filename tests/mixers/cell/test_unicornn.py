"""UnICORNN against its equations by hand, as the authors' code runs on a GPU only; by Newton; and what it keeps."""

import math

import pytest
import torch
from mixers.fine_steps import first_order
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.unicornn import UnICORNN

D = 8


@pytest.mark.parametrize("way", ["native", "newton", "loop"])
def test_it_is_its_equations_by_hand(way):
    """Unit by unit in plain Python, from a state, with steps of every length."""
    mixer = UnICORNN(D, step=0.3, stiffness=2.5).double()
    with torch.no_grad():
        mixer.input.bias.normal_()
    x, start = torch.randn(1, 7, D, dtype=torch.float64), torch.randn(2, 1, D, dtype=torch.float64)
    dt = 0.5 + torch.rand(1, 7, dtype=torch.float64)
    with use(way):
        got, state = mixer(x, tuple(start), Clock(dt=dt))
    force = mixer.input(x)[0].tolist()
    for unit in range(D):
        y, z = start[0, 0, unit].item(), start[1, 0, unit].item()
        w, c = mixer.recurrent[unit].item(), mixer.pace[unit].item()
        for t in range(7):
            time = 0.3 * dt[0, t].item() / (1 + math.exp(-c))
            z -= time * (math.tanh(w * y + force[t][unit]) + 2.5 * y)
            y += time * z
            assert abs(got[0, t, unit].item() - y) < 1e-12
        assert_close([s[0, unit].item() for s in state], [y, z])


def test_it_keeps_areas():
    """A thousand steps, and the map of each unit's (y, z) still has determinant 1: nothing is forgotten or explodes."""
    mixer = UnICORNN(D).double()
    x = torch.randn(1, 1000, D, dtype=torch.float64)
    start = tuple(torch.zeros(1, D, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, last = mixer(x, start)
    rows = [torch.stack(torch.autograd.grad(s.sum(), start, retain_graph=True), -1)[0] for s in last]
    assert_close(torch.linalg.det(torch.stack(rows, -2)), torch.ones(D, dtype=torch.float64), rtol=1e-10, atol=0)


def test_irregular_steps_are_near_fine_regular_ones():
    mixer = UnICORNN(D, step=0.1, stiffness=3.0).double()
    first_order(mixer, torch.randn(1, 5, D, dtype=torch.float64), within=0.2)


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"stiffness": -1.0}])
def test_what_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is"):
        UnICORNN(D, **wrong)
