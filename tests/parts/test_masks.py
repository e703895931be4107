"""Masks: what is absent is exactly zero whatever an optimiser does, and the number of connections never changes."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recurra.mixers import MIXERS
from recurra.ops.scan import use
from recurra.parts.masks import Mask, erdos_renyi, matrices, modular, reaching, scattered, uniform

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def random(seed=0):
    return np.random.default_rng(seed)


def masked(model, density=0.3, allocation="erdos_renyi", seed=0):
    found = matrices(model)
    return Mask(found, scattered(found, density, allocation, random(seed)))


def network():
    return nn.Sequential(MIXERS["lstm"](8), Read(), nn.Linear(8, 5))


class Read(nn.Module):
    def forward(self, given):
        return given[0]


def test_the_matrices_are_those_of_linear_layers_convolutions_and_cells():
    model = nn.ModuleDict({
        "cell": MIXERS["lstm"](8, hidden=12), "conv": nn.Conv2d(3, 4, (5, 2)), "embedding": nn.Embedding(7, 8),
        "out": nn.Linear(8, 7), "norm": nn.LayerNorm((2, 8)),
    })  # fmt: skip
    assert {name: m.shape for name, m in matrices(model).items()} == {
        "cell.cell.input_weight": (4, 12, 8), "cell.cell.weight": (4, 12, 8), "cell.cell.project": (1, 8, 12),
        "conv.weight": (1, 4, 3, 5, 2), "out.weight": (1, 7, 8),
    }  # fmt: skip
    assert [*matrices(model, "*.norm*"), *matrices(model, "out.bias")] == []
    assert {name: m.shape for name, m in matrices(model, "[en]*.weight").items()} == {
        "embedding.weight": (1, 7, 8), "norm.weight": (1, 2, 8),
    }  # fmt: skip
    assert matrices(model, "*cell.weight")["cell.cell.weight"].shape == (4, 12, 8)
    assert list(matrices(MIXERS["ctrnn"](8), "recurrent")) == ["recurrent"]


def test_a_shared_weight_is_one_matrix_and_a_parametrised_one_is_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(matrices(model)) == ["0.weight"]
    nn.utils.parametrizations.weight_norm(model[0])
    assert list(matrices(model[0])) == []


@pytest.mark.parametrize("name", OPTIMISERS)
def test_absent_weights_stay_exactly_zero_and_so_does_what_is_remembered_of_them(name):
    model = network()
    mask = masked(model)
    optimiser, count = OPTIMISERS[name](model.parameters()), mask.count
    for step in range(60):
        model(torch.randn(3, 4, 8)).square().mean().backward()
        mask.hide()
        for part, x in mask.connections.items():
            assert not mask.matrices[part].parameter.grad[~x].any()
        optimiser.step()
        if step % 10 == 9:
            assert mask.rewire({k: torch.rand(x.shape) for k, x in mask.connections.items()}, 0.4) > 0
            mask.hold(optimiser)
        # without hold too: nothing moves what has neither gradient nor memory
        for part, x in mask.connections.items():
            p = mask.matrices[part].parameter
            assert not p[~x].any()
            for y in optimiser.state[p].values():
                if isinstance(y, torch.Tensor) and y.shape == p.shape:
                    assert not y[~x].any()
        optimiser.zero_grad()
    assert mask.count == count
    assert all(mask.matrices[part].parameter[x].any() for part, x in mask.connections.items())


@pytest.mark.parametrize("name", ["lstm", "gru", "gla"])
def test_a_masked_mixer_is_a_mixer_and_its_copy_and_its_file_are_as_sparse(name):
    mixer = MIXERS[name](8)
    mask = masked(mixer)
    x = torch.randn(2, 9, 8)
    whole, _ = mixer(x)
    state, pieces = None, []
    for piece in x.split(4, 1):
        y, state = mixer(piece, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    with use("loop"):
        assert_close(mixer(x)[0], whole)
    other = MIXERS[name](8)
    other.load_state_dict(mixer.state_dict())
    assert_close(other(x)[0], whole, rtol=0, atol=0)
    loaded = dict(other.named_parameters())
    assert all(not loaded[part][~x].any() for part, x in mask.connections.items())


def test_rewiring_drops_the_weakest_keeps_the_rest_and_grows_the_highest():
    model = nn.Linear(6, 5, bias=False)
    mask = masked(model, 0.5, "uniform")
    before, weight = mask.connections["weight"], model.weight.detach().clone()
    scores = torch.rand(5, 6)
    assert mask.count == 15
    new = mask.rewire({"weight": scores}, 0.4)
    mask.hold()
    after = mask.connections["weight"]
    assert mask.count == 15
    # by hand: the six weakest go, then the six best of all that is not there
    strongest = sorted(before.nonzero().tolist(), key=lambda at: -abs(float(weight[tuple(at)])))[:9]
    free = [[i, j] for i in range(5) for j in range(6) if [i, j] not in strongest]
    grown = sorted(free, key=lambda at: -float(scores[tuple(at)]))[:6]
    assert sorted(strongest + grown) == after.nonzero().tolist()
    assert new == sum(not before[tuple(at)] for at in grown)
    # what was there keeps its weight, what is new begins at zero
    assert_close(model.weight.detach(), weight * (before & after), rtol=0, atol=0)


def test_a_full_matrix_and_a_fraction_of_nothing_keep_what_they_have():
    model = nn.Linear(6, 5, bias=False)
    mask = masked(model, 1.0)
    weight = model.weight.detach().clone()
    assert mask.density == 1 and mask.rewire({"weight": torch.rand(5, 6)}, 0.5) == 0
    mask.hold()
    assert torch.equal(model.weight, weight)
    mask = masked(model, 0.2)
    assert mask.rewire({"weight": torch.rand(5, 6)}, 0.01) == 0 and mask.count == 6


@pytest.mark.parametrize("density", [0.02, 0.1, 0.4, 0.9, 1.0])
def test_erdos_renyi_against_a_search_for_its_scale(density):
    shapes = {"wide": (1, 300, 40), "gates": (4, 50, 50), "kernel": (1, 8, 3, 5, 5), "out": (1, 2, 50)}
    sizes = {k: math.prod(x) for k, x in shapes.items()}
    raw = {
        "wide": 340 / 12000, "gates": 100 / 2500, "kernel": (8 + 3 + 5 + 5) / 600, "out": 52 / 100,
    }  # fmt: skip
    low, high = 0.0, 1e4
    for _ in range(200):
        scale = (low + high) / 2
        total = sum(min(1.0, scale * raw[k]) * sizes[k] for k in shapes)
        low, high = (scale, high) if total < density * sum(sizes.values()) else (low, scale)
    found = erdos_renyi(shapes, density)
    for name in shapes:
        assert math.isclose(found[name], min(1.0, scale * raw[name]), rel_tol=1e-6)
    assert uniform(shapes, density) == dict.fromkeys(shapes, density)


@pytest.mark.parametrize("allocation", ["uniform", "erdos_renyi"])
def test_scattered_connections_have_the_density_and_follow_from_the_seed(allocation):
    found = matrices(network())
    one, same, other = (scattered(found, 0.2, allocation, random(seed)) for seed in (0, 0, 1))
    assert abs(Mask(found, one).density - 0.2) < 0.01
    assert all(torch.equal(one[k], same[k]) for k in one) and any(not torch.equal(one[k], other[k]) for k in one)
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="density is"):
            scattered(found, wrong, allocation, random())
    with pytest.raises(ValueError, match="allocation is 'other': it must be one of uniform, erdos_renyi"):
        scattered(found, 0.1, "other", random())


def test_modules_that_do_not_reach_each_other_share_no_edge():
    found = matrices(nn.ModuleList([MIXERS["lstm"](12), nn.Linear(10, 12), nn.Conv1d(9, 8, 3)]))
    for matrix in found.values():
        graph = reaching(4, 2, random())
        assert graph.diagonal().all() and (graph.sum(0) == 2).all()
        x = modular(matrix, graph, 0.0, random()).view(matrix.shape)
        _, outputs, inputs, *_ = matrix.shape
        for row in range(outputs):
            for column in range(inputs):
                edge = graph[row * 4 // outputs, column * 4 // inputs]
                assert (x[:, row, column] == edge).all()
        stray = modular(matrix, graph, 0.25, random()).view(matrix.shape)
        assert (stray & x).sum() == x.sum() and (stray & ~x).sum() == round(0.25 * int((~x).sum()))
    assert reaching(3, 3, random()).all()


def test_what_does_not_fit_is_refused():
    model = nn.Linear(6, 5)
    found = matrices(model)
    with pytest.raises(ValueError, match="the connections of weight are None"):
        Mask(found, {})
    with pytest.raises(ValueError, match="the connections of weight are"):
        Mask(found, {"weight": torch.ones(5, 6)})
    for reach in (0, 4):
        with pytest.raises(ValueError, match="it must be between 1 and the number of modules, 3"):
            reaching(3, reach, random())
    with pytest.raises(ValueError, match="6 modules are more than a matrix of 5 by 6"):
        modular(found["weight"], reaching(6, 1, random()), 0.0, random())
    with pytest.raises(ValueError, match=r"stray is 1\.5"):
        modular(found["weight"], reaching(2, 1, random()), 1.5, random())


def test_a_gradient_that_is_no_number_is_not_hidden():
    model = nn.Linear(6, 5)
    mask = masked(model)
    model.weight.grad = torch.full((5, 6), math.nan)
    mask.hide()
    assert model.weight.grad.isnan().all()
