"""LinOSS against discretax (tests/oracles/make_oscillators.py), its eigenvalues in closed form, and irregular steps."""

import pytest
import torch
from mixers.fine_steps import first_order
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.block.linoss import FORMS, LinOSS

X = numbers("oscillators")[1]["x"]
each_form = pytest.mark.parametrize("form", FORMS)


def _theirs(form):
    """Their reads, and the mixer with their weights."""
    weights, stored = numbers("oscillators", f"linoss.{form}.")
    mixer = LinOSS(8, units=5, form=form).double()
    own = {name: weights[name] for name in ("stiffness", "damping", "pace", "skip") if name in weights}
    own["write.weight"] = torch.cat(weights["write"].unbind(-1), 0)
    # the real part of a product
    real, imaginary = weights["read"].unbind(-1)
    own["read.weight"] = torch.cat([real, -imaginary], 1)
    mixer.load_state_dict(mixer.state_dict() | own)
    return stored["y"], mixer


@each_way
@each_form
def test_equals_discretax(form, way):
    want, mixer = _theirs(form)
    left, right = mixer.out(torch.nn.functional.gelu(want)).chunk(2, -1)
    with use(way):
        first, state = mixer(X[:, :4])
        second, _ = mixer(X[:, 4:], state)
    assert_close(torch.cat([first, second], 1), left * right.sigmoid(), rtol=1e-11, atol=1e-11)


def _sizes(mixer, dt=1.0):
    """The moduli of a step's eigenvalues."""
    matrix, _ = mixer.steps(dt * mixer.pace.double().sigmoid())
    return torch.linalg.eigvals(matrix).abs()


def test_what_a_step_keeps_is_known():
    """The implicit step shrinks by its frequency, the symplectic one not at all, the damped one by its damping."""
    mixer = LinOSS(8, units=64).double()
    step, stiffness = mixer.pace.sigmoid(), mixer.stiffness.relu()
    want = (1 + step.square() * stiffness).rsqrt()[:, None].expand(-1, 2)
    assert_close(_sizes(mixer), want)
    mixer = LinOSS(8, units=64, form="imex").double()
    assert_close(_sizes(mixer), torch.ones(64, 2, dtype=torch.float64))
    mixer = LinOSS(8, units=64, form="damped").double()
    want = (1 + mixer.pace.sigmoid() * mixer.damping.relu()).rsqrt()[:, None].expand(-1, 2)
    # where it starts a spring may hardly turn: both eigenvalues are nearly one
    assert_close(_sizes(mixer), want, rtol=1e-6, atol=0)
    assert want.min() >= 0.9 and want.max() <= 1


def test_damped_springs_are_stable_whatever_was_learned():
    mixer = LinOSS(8, units=256, form="damped").double()
    with torch.no_grad():
        for p in (mixer.stiffness, mixer.damping, mixer.pace):
            p.add_(5 * torch.randn(256))
    for dt in (0.1, 1.0, 7.0):
        assert _sizes(mixer, dt).max() < 1 + 1e-6


@each_form
def test_irregular_steps_are_near_fine_regular_ones(form):
    """Of first order: half the steps leave half of the error."""
    mixer = LinOSS(8, units=5, form=form).double()
    with torch.no_grad():
        # away from the bounds of the damped form, which move with the step
        mixer.stiffness.copy_(torch.linspace(0.2, 1, 5))
        mixer.pace.fill_(-2)
        if mixer.damping is not None:
            mixer.damping.fill_(0.1)
    first_order(mixer, X[:, :5])


@each_form
def test_a_clock_that_says_what_is_so_anyway_changes_nothing(form):
    mixer = LinOSS(8, form=form).double()
    y, state = mixer(X, None, Clock(dt=torch.ones(X.shape[:2], dtype=torch.float64)))
    want, last = mixer(X)
    assert_close(y, want)
    assert_close(state, last)


@each_form
def test_every_parameter_of_every_form_has_a_gradient(form):
    mixer = LinOSS(8, form=form).double()
    grads = torch.autograd.grad(mixer(X)[0].square().sum(), list(mixer.parameters()))
    assert all((g != 0).any() and torch.isfinite(g).all() for g in grads)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="form is 'explicit': it must be one of im, imex, damped"):
        LinOSS(8, form="explicit")
    with pytest.raises(ValueError, match="units is 0"):
        LinOSS(8, units=0)
