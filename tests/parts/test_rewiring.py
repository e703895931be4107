"""Where connections grow: at random as seeded, at the largest slopes, between the most correlated units."""

import math

import numpy as np
import pytest
import torch
from parts.test_masks import masked, network, random
from torch import nn
from torch.testing import assert_close

from recurra.clock import Clock
from recurra.mixers import MIXERS
from recurra.parts.masks import Mask, matrices, scattered
from recurra.parts.rewiring import SET, Hebbian, RigL, Static


def grown(mask, before):
    return {name: x & ~before[name] for name, x in mask.connections.items()}


def test_the_schedule():
    mask = masked(network())
    rigl, evolving = (kind(mask, 1000, 0, every=50, fraction=0.4, until=0.5) for kind in (RigL, SET))
    assert [step for step in range(1, 1001) if rigl.due(step)] == list(range(50, 500, 50))
    assert_close(rigl.share(0), 0.4)
    assert_close(rigl.share(250), 0.2)
    assert_close(rigl.share(125), 0.2 * (1 + math.sqrt(0.5)))
    assert [evolving.share(step) for step in (0, 250, 499)] == [0.4] * 3
    assert not any(Static(mask, 1000, 0).due(step) for step in range(1000))
    for wrong in ({"every": 0}, {"fraction": 1.0}, {"fraction": 0.0}, {"until": 0.0}, {"until": 1.1}):
        with pytest.raises(ValueError, match="every is"):
            RigL(mask, 1000, 0, **wrong)


def test_random_growth_follows_from_the_seed_and_the_step_alone():
    mask = masked(network())
    one = SET(mask, 1000, 3)
    scores = one.scores(100)
    torch.rand(5), np.random.default_rng().random()
    again = SET(mask, 1000, 3).scores(100)
    assert all(torch.equal(scores[k], again[k]) for k in scores)
    for other in (one.scores(200), SET(mask, 1000, 4).scores(100)):
        assert not any(torch.equal(scores[k], other[k]) for k in scores)


def test_random_growth_is_even_over_what_is_absent():
    """Every place that is free is as likely: 400 rewirings of ten free places, five grown at each."""
    model = nn.Linear(4, 5, bias=False)
    found = matrices(model)
    chosen = scattered(found, 0.5, "uniform", random())
    seen = torch.zeros(5, 4)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 21.0).view(5, 4))
    weight = model.weight.detach().clone()
    for step in range(400):
        with torch.no_grad():
            model.weight.copy_(weight)
        mask = Mask(found, chosen)
        mask.rewire(SET(mask, 1000, 0).scores(step), 0.5)
        seen += mask.connections["weight"]
    free = torch.ones(5, 4, dtype=torch.bool)
    strongest = (weight * chosen["weight"]).flatten().topk(5).indices
    free.view(-1)[strongest] = False
    assert (seen[~free] == 400).all()
    # five of fifteen places, 400 times: within four standard deviations
    assert ((seen[free] - 400 / 3).abs() < 4 * math.sqrt(400 / 3 * 2 / 3)).all()


def test_rigl_grows_the_largest_gradients():
    model = network()
    mask = masked(model)
    model(torch.randn(3, 7, 8)).square().mean().backward()
    slopes = {k: m.parameter.grad.clone() for k, m in mask.matrices.items()}
    weights = {k: m.parameter.detach().clone() for k, m in mask.matrices.items()}
    before, rule = dict(mask.connections), RigL(mask, 1000, 0)
    scores = rule.scores(100)
    mask.hide()
    mask.rewire(scores, rule.share(100))
    for name, x in mask.connections.items():
        count = int(before[name].sum())
        dropped = int(rule.share(100) * count)
        # by hand, over all places one by one
        places = [tuple(at) for at in before[name].nonzero().tolist()]
        kept = set(sorted(places, key=lambda at: -abs(float(weights[name][at])))[: count - dropped])
        free = [at for at in map(tuple, torch.ones_like(x).nonzero().tolist()) if at not in kept]
        best = set(sorted(free, key=lambda at: -abs(float(slopes[name][at])))[:dropped])
        assert set(map(tuple, x.nonzero().tolist())) == kept | best


def seen(rule, model, *inputs):
    with rule.watching():
        for x in inputs:
            model(x)
    return rule.scores(100)


def test_hebbian_scores_are_correlations():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    mask = masked(model, 1.0)
    one, two = torch.randn(3, 7, 6), torch.randn(2, 9, 6)
    scores = seen(Hebbian(mask, 1000, 0), model, one, two)
    x = torch.cat([part.flatten(0, 1) for part in (one, two)])
    inner = model[0](x)
    for name, before, after in (("0.weight", x, inner), ("2.weight", inner.tanh(), model(x))):
        columns = torch.cat([after, before], 1).T.detach().double()
        expected = torch.corrcoef(columns)[: after.shape[1], after.shape[1] :].abs()
        assert_close(scores[name], expected)
    assert not model[0]._forward_hooks, "looking leaves nothing behind"


def test_hebbian_grows_the_most_correlated_pairs():
    model = nn.Linear(8, 6)
    mask = masked(model, 0.3)
    x = torch.randn(50, 8)
    weight, before = model.weight.detach().clone(), mask.connections["weight"]
    rule = Hebbian(mask, 1000, 0)
    mask.rewire(seen(rule, model, x), rule.share(100))
    y = nn.functional.linear(x, weight, model.bias).detach()
    count, dropped = int(before.sum()), int(rule.share(100) * int(before.sum()))
    places = [tuple(at) for at in before.nonzero().tolist()]
    kept = set(sorted(places, key=lambda at: -abs(float(weight[at])))[: count - dropped])
    pairs = [(i, j) for i in range(6) for j in range(8) if (i, j) not in kept]
    best = sorted(pairs, key=lambda at: -abs(float(np.corrcoef(y[:, at[0]], x[:, at[1]])[0, 1])))[:dropped]
    assert set(map(tuple, mask.connections["weight"].nonzero().tolist())) == kept | set(best)


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_in_a_cell_a_recurrent_connection_joins_a_step_and_the_one_before(name):
    mixer = MIXERS[name](8)
    mask = masked(mixer, 0.5)
    x, reset = torch.randn(2, 6, 8), torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 3] = True
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    rule = Hebbian(mask, 1000, 0)
    state = tuple(torch.randn_like(part) for part in mixer.initial_state(2))
    with rule.watching():
        y, _ = mixer(x, state, Clock(reset, valid))
    scores = rule.scores(100)
    pairs, inputs = [], []
    for row in range(2):
        before = state[0][row]
        for t in range(6 if row == 0 else 4):
            before = torch.zeros(8) if reset[row, t] else before
            pairs.append(torch.cat([y[row, t], before]))
            inputs.append(torch.cat([y[row, t], x[row, t]]))
            before = y[row, t]
    for part, columns in (("cell.weight", pairs), ("cell.input_weight", inputs)):
        expected = torch.corrcoef(torch.stack(columns).detach().double().T)[:8, 8:].abs()
        for gate in scores[part].view(-1, 8, 8):
            assert_close(gate, expected)


def test_a_unit_that_never_changes_is_correlated_with_none():
    model = nn.Linear(4, 3)
    mask = masked(model, 0.5)
    x = torch.randn(20, 4)
    x[:, 1] = 0.3
    scores = seen(Hebbian(mask, 1000, 0), model, x)["weight"]
    assert not scores[:, 1].any() and scores[:, 0].all()


def test_what_hebbian_cannot_see_is_refused():
    for model in (nn.Conv1d(3, 4, 2), MIXERS["lstm"](8, hidden=12)):
        with pytest.raises(ValueError, match="hebbian sees the activities of linear layers"):
            Hebbian(masked(model), 1000, 0)
    model = nn.ModuleList([nn.Linear(4, 4)])
    model.forward = lambda x: nn.functional.linear(x, model[0].weight)
    with pytest.raises(ValueError, match=r"hebbian saw nothing of 0\.weight"):
        seen(Hebbian(masked(model), 1000, 0), model, torch.randn(2, 4))


def test_hebbian_names_all_that_it_does_not_see_and_what_to_do():
    model, x = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]), torch.randn(2, 4)
    model.forward = lambda x: model[2](nn.functional.linear(x, model[0].weight @ model[1].weight))
    with pytest.raises(ValueError, match=r"nothing of 0\.weight, 1\.weight: .* name others with where, or"):
        seen(Hebbian(masked(model), 1000, 0), model, x)
    found = matrices(model, "2.weight")
    others = Mask(found, scattered(found, 0.5, "uniform", random()))
    assert set(seen(Hebbian(others, 1000, 0), model, x)) == {"2.weight"}


def test_layers_that_are_read_where_nobody_listens_are_seen():
    """In mLSTM two layers are products with their weights, but for those who listen."""
    model = MIXERS["mlstm"](8)
    mask = masked(model)
    assert set(seen(Hebbian(mask, 1000, 0), model, torch.randn(2, 70, 8))) == set(mask.matrices)
