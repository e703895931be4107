"""The pen: its density against torch.distributions, its window against a loop over letters, draws against moments."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, MultivariateNormal
from torch.testing import assert_close

from recurra.models import MODELS
from recurra.models.handwriting import draw
from recurra.tasks.pen_strokes import density


def outputs(rows, components, spread=1.0):
    torch.manual_seed(0)
    raw = spread * torch.randn(rows, 6 * components + 1, dtype=torch.float64)
    return torch.cat([raw[:, :components].log_softmax(-1), raw[:, components:]], -1)


def mixture(y):
    """The same density by torch."""
    weights, across, up, wide, high, turn = y[:, :-1].chunk(6, -1)
    rho, mean = turn.tanh(), torch.stack([across, up], -1)
    cross = rho * (wide + high).exp()
    covariance = torch.stack(
        [torch.stack([(2 * wide).exp(), cross], -1), torch.stack([cross, (2 * high).exp()], -1)], -2
    )
    return MixtureSameFamily(Categorical(logits=weights), MultivariateNormal(mean, covariance))


def test_the_density_is_that_of_torch():
    y = outputs(50, 4)
    moves = torch.randn(50, 3, dtype=torch.float64)
    moves[:, 2] = (moves[:, 2] > 0).double()
    expected = mixture(y).log_prob(moves[:, :2]) + Bernoulli(logits=y[:, -1]).log_prob(moves[:, 2])
    assert_close(density(y, moves), expected)


def test_near_certain_correlations_stay_finite():
    y = outputs(1, 2).repeat(3, 1)
    y[:, 10:12] = torch.tensor([[20.0, -20.0], [9.0, 9.0], [0.0, 0.0]])
    y.requires_grad_()
    value = density(y, torch.zeros(3, 3, dtype=torch.float64)).sum()
    value.backward()
    assert value.isfinite() and y.grad.isfinite().all()


def test_draws_have_the_moments_of_the_density():
    y = outputs(1, 3, spread=0.5)
    drawn = draw(y.expand(40_000, -1), 0.0, torch.Generator().manual_seed(1))
    truth = mixture(y)
    assert_close(drawn[:, :2].mean(0), truth.mean[0], atol=0.05, rtol=0)
    assert_close(drawn[:, :2].var(0), truth.variance[0], atol=0.1, rtol=0.05)
    assert_close(drawn[:, 2].mean(), y[0, -1].sigmoid(), atol=0.02, rtol=0)


def test_bias_tidies():
    """Deviations shrink by e^-b and log-weights grow by 1 + b: with much of it only the likeliest mean is drawn."""
    y = outputs(1, 3)
    drawn = draw(y.expand(2000, -1), 12.0, torch.Generator().manual_seed(1))
    best = int(y[0, :3].argmax())
    mean = torch.stack([y[0, 3 + best], y[0, 6 + best]])
    assert_close(drawn[:, :2], mean.expand(2000, 2), atol=1e-3, rtol=0)
    one = outputs(1, 1)
    plain, tidy = (draw(one.expand(20_000, -1), b, torch.Generator().manual_seed(1))[:, 0].std() for b in (0.0, 1.0))
    assert_close(plain / tidy, torch.tensor(math.e).double(), rtol=1e-6, atol=0)


def test_the_window_is_its_sum_over_letters():
    torch.manual_seed(0)
    model = MODELS["handwriting"](letters=5, text=6, width=16, depth=2, windows=3).double().eval()
    text, moves = [2, 5, 1], torch.randn(1, 4, 3, dtype=torch.float64)
    x = torch.zeros(1, 7, 4, dtype=torch.float64)
    x[0, :3, 0], x[0, 3:, 1:] = torch.tensor(text).double(), moves[0]
    _, (_, _, known, count, places, saw) = model(x)
    assert known.tolist() == [[2, 5, 1, 0, 0, 0]] and count.tolist() == [[3]]
    inner, kappa, w = None, torch.zeros(3).double(), torch.zeros(5).double()
    for t in range(4):
        now = model.embedding(moves[:, t]) + model.seen(w)[None]
        h, inner = model.first(now[:, None], inner)
        raw = model.window(h[0, 0])
        alpha, beta, kappa = raw[:3].exp(), raw[3:6].exp(), kappa + raw[6:].exp()
        w = torch.zeros(5).double()
        for u, letter in enumerate(text, 1):
            w[letter - 1] += sum(alpha[k] * torch.exp(-beta[k] * (kappa[k] - u) ** 2) for k in range(3))
    assert_close(places[0], kappa)
    assert_close(saw[0], w)


def test_a_pen_stops_when_it_has_passed_its_text():
    torch.manual_seed(0)
    model = MODELS["handwriting"](letters=5, text=6, width=16, depth=2).eval()
    texts = torch.tensor([[1, 2, 3, 4, 5, 1], [2, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        # three tenths of a letter a move, whatever is written: 7 moves to the end of one letter, 24 to that of six
        model.window.weight.zero_()
        model.window.bias[-5:] = math.log(0.3)
    moves = model.write(texts, 200, bias=0.5, seed=1)
    assert moves.shape == (2, 24, 3) and moves.isfinite().all()
    assert (moves[1, 7:] == 0).all() and (moves[1, :7, :2] != 0).all() and (moves[0, :, :2] != 0).all()
    assert torch.equal(moves, model.write(texts, 200, bias=0.5, seed=1))
    assert not torch.equal(moves, model.write(texts, 200, bias=0.5, seed=2))


def test_a_text_that_does_not_fit_is_refused():
    model = MODELS["handwriting"](letters=5, text=2, width=16, depth=2)
    with pytest.raises(ValueError, match="a text has 3 letters: this model has room for 2"):
        model.write(torch.tensor([[1, 1, 1]]), 1)
    with pytest.raises(ValueError, match="there must be 2 blocks"):
        MODELS["handwriting"](letters=5, text=2, width=16, depth=1)
