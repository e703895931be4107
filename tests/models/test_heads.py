"""Classifiers and forecasters: cuts, resets and gaps change nothing; the budget is met."""

import pytest
import torch
from torch.testing import assert_close

from recurra import MIXERS, Clock
from recurra.models import MODELS, count, load, solve_width


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_a_classifier_may_read_in_pieces(pool):
    torch.manual_seed(0)
    model = MODELS["classifier"](classes=3, inputs=4, width=16, depth=2, pattern="gla", pool=pool).double()
    x = torch.randn(2, 20, 4, dtype=torch.float64)
    valid = torch.rand(2, 20) < 0.7
    valid[:, 13] = True
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[:, 12] = valid[:, 12]
    clock = Clock(reset, valid)
    whole, _ = model(x, None, clock)
    state = None
    for a, b in ((0, 5), (5, 5), (5, 14), (14, 20)):
        pieces, state = model(x[:, a:b], state, clock.cut(a, b))
    assert_close(pieces, whole)
    for row in range(2):
        start = 12 if reset[row].any() else 0
        alone, _ = model(x[row : row + 1, start:][:, valid[row, start:]])
        assert_close(whole[row : row + 1], alone)


def test_a_forecaster_never_crosses_quantiles_and_never_sees_ahead():
    torch.manual_seed(0)
    levels = [0.1, 0.5, 0.9]
    model = MODELS["forecaster"](inputs=1, width=16, depth=2, horizon=4, quantiles=levels, pattern="mingru").double()
    x = torch.randn(2, 15, 1, dtype=torch.float64)
    y, state = model(x[:, :8])
    z, _ = model(x[:, 8:], state)
    whole, _ = model(x)
    assert whole.shape == (2, 15, 4, 3)
    assert_close(torch.cat([y, z], 1), whole)
    assert (whole.diff(dim=-1) >= 0).all()
    with pytest.raises(ValueError, match="must rise"):
        MODELS["forecaster"](inputs=1, width=16, depth=1, quantiles=[0.9, 0.1])


@pytest.mark.parametrize("kind", ["classifier", "forecaster"])
def test_folders_give_the_same_model_back(kind, tmp_path):
    extra = dict(classes=3, vocabulary=7) if kind == "classifier" else dict(inputs=2, horizon=3)
    model = MODELS[kind](width=16, depth=2, pattern="lstm", **extra).eval()
    model.save_pretrained(tmp_path)
    x = torch.randint(0, 7, (2, 9)) if kind == "classifier" else torch.randn(2, 9, 2)
    again = load(tmp_path)
    assert torch.equal(again(x)[0], model(x)[0]) and again.config == model.config
    with pytest.raises(ValueError, match=f"holds a {kind}, not a language_model"):
        MODELS["language_model"].from_pretrained(tmp_path)


HYBRID = "mamba2*2,sliding_window"
# what a mixer has grows with its width as it does in others: a larger budget is met by a few as by all
BUDGETS = [(150_000, x) for x in (*MIXERS, HYBRID)]
BUDGETS += [(600_000, x) for x in ("lstm", "gla", "mamba", "deltanet", "titans", "attention", HYBRID)]


@pytest.mark.parametrize(("budget", "pattern"), BUDGETS)
def test_the_budget_is_met_within_three_percent(pattern, budget):
    solved = solve_width("language_model", dict(vocabulary=256, depth=2, pattern=pattern), budget)
    model = MODELS["language_model"](**solved)
    assert abs(count(model) - budget) <= 0.03 * budget
    assert solved["width"] % 8 == 0


def test_a_budget_that_cannot_be_met_says_the_nearest():
    with pytest.raises(ValueError, match="the nearest is"):
        solve_width("language_model", dict(vocabulary=256, depth=2, pattern="gla"), 1000)


@pytest.mark.parametrize("pattern", MIXERS)
def test_what_decays_over_time_is_not_decayed_by_the_optimiser(pattern):
    model = MODELS["language_model"](vocabulary=9, width=16, depth=1, pattern=pattern)
    named = dict(model.named_parameters())
    left = model.undecayed_parameters()
    assert left <= set(named)
    assert all(name in left for name, p in named.items() if p.ndim < 2)
    assert any(name not in left for name in named)
