"""Paths through time: the flow against its closed form and torchdiffeq, the nats against torch, time against itself."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock
from recurra.models import MODELS


def make(**more):
    torch.manual_seed(0)
    return MODELS["latent_ode"](inputs=4, width=16, depth=1, latent=3, **more).double().eval()


def path(rows=2, steps=9, seen=0.5):
    marks = torch.rand(rows, steps, 1) < seen
    marks[:, 0] = True
    marks = marks.expand(rows, steps, 2).double()
    return torch.cat([torch.randn(rows, steps, 2).double() * marks, marks], -1), 0.2 + torch.rand(rows, steps).double()


def test_the_decoder_follows_its_field():
    model = make(steps=8)
    x, dt = path()
    with torch.no_grad():
        model.field.second.weight.mul_(10)
        means, (z, _) = model(x, None, Clock(dt=dt))
        start, _ = model._find(x, torch.arange(9).eq(0).expand(2, 9), x[..., 2] > 0, dt)
        for row in range(2):
            times = torch.cat([torch.zeros(1), dt[row, 1:].cumsum(0)]).double()
            exact = odeint(lambda _, z: model.field(z), start[row : row + 1], times, rtol=1e-10, atol=1e-10)[:, 0]
            assert_close(means[row, :, :2], model.out(exact), rtol=1e-5, atol=1e-6)
            assert_close(z[row], exact[-1], rtol=1e-5, atol=1e-6)


def test_without_a_field_nothing_moves():
    model = make()
    with torch.no_grad():
        model.field.second.weight.zero_()
    x, dt = path()
    means, _ = model(x, None, Clock(dt=dt))
    assert_close(means[:, :, :2], means[:, :1, :2].expand(2, 9, 2))


def test_the_nats_are_those_of_torch():
    model, (x, dt) = make(), path()
    outputs, _ = model(x, None, Clock(dt=dt))
    first = torch.arange(9).eq(0).expand(2, 9)
    mean, nats = model._find(x, first, x[..., 2] > 0, dt)
    backwards = model.encoder(
        model.embedding(x.flip(1)), None, Clock(None, (x[..., 2] > 0).flip(1), gaps(x[..., 2] > 0, dt).flip(1))
    )[0]
    mu, log_sigma = model.found(backwards[:, -1]).chunk(2, -1)
    assert_close(mean, mu)
    truth = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).sum(-1)
    assert_close(outputs[:, 0, 2], truth)
    assert_close(nats[:, 0, 0], truth)
    assert (outputs[:, 1:, 2] == 0).all()


def gaps(seen, dt):
    """The time from each sighting to the next, step by step; 1 elsewhere."""
    found = torch.ones_like(dt)
    for row in range(len(dt)):
        places = seen[row].nonzero()[:, 0].tolist()
        for place, later in itertools.pairwise(places):
            found[row, place] = dt[row, place + 1 : later + 1].sum()
    return found


def test_a_step_at_which_nothing_is_seen_only_asks():
    """Two steps of time are one of their sum where nothing is seen between; what is read is the same."""
    model, (x, dt) = make(steps=64), path(seen=1.0)
    wide = torch.cat([x[:, :4], torch.zeros(2, 1, 4).double(), x[:, 4:]], 1)
    longer = torch.cat([dt[:, :4], 0.25 * dt[:, 4:5], 0.75 * dt[:, 4:5], dt[:, 5:]], 1)
    plain, _ = model(x, None, Clock(dt=dt))
    asked, _ = model(wide, None, Clock(dt=longer))
    kept = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert_close(asked[:, kept], plain, rtol=1e-7, atol=1e-9)


def test_a_gap_is_no_time():
    model, (x, dt) = make(), path()
    valid = torch.rand(2, 9) < 0.6
    valid[:, 5] = True
    some, _ = model(x, None, Clock(None, valid, dt))
    for row in range(2):
        alone, _ = model(x[row : row + 1, valid[row]], None, Clock(dt=dt[row : row + 1, valid[row]]))
        assert_close(some[row, valid[row]], alone[0])


def test_training_draws_and_evaluation_does_not():
    model, (x, dt) = make(), path()
    model.train()
    torch.manual_seed(0)
    one, two = (model(x, None, Clock(dt=dt))[0] for _ in range(2))
    assert not torch.equal(one, two)
    model.eval()
    one, two = (model(x, None, Clock(dt=dt))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_what_cannot_be_is_refused():
    model, (x, dt) = make(), path()
    _, state = model(x, None, Clock(dt=dt))
    with pytest.raises(ValueError, match="give it whole"):
        model(x, state)
    with pytest.raises(ValueError, match="give rows without reset"):
        model(x, None, Clock(reset=torch.zeros(2, 9, dtype=torch.bool)))
    with pytest.raises(ValueError, match="lstm has no notion of time"):
        make(pattern="lstm")
    with pytest.raises(ValueError, match="must be even"):
        MODELS["latent_ode"](inputs=3, width=16, depth=1)
