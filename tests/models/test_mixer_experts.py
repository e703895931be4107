"""Families of systems: paths against torchdiffeq, the law, and the gate against NumPy, SciPy and a plain reading."""

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock
from recurra.models import MODELS, count, load, solve_width
from recurra.parts.clusters import apart, claim, k_means


def make(**more):
    torch.manual_seed(0)
    sizes = dict(inputs=4, environments=6, width=16, depth=2, experts=2, context=3)
    model = MODELS["mixer_experts"](**{**sizes, **more}).double().eval()
    with torch.no_grad():
        for weight in model.fields.weights:
            weight.add_(0.1 * torch.randn_like(weight))
        model.fields.weights[-1].mul_(10)
        model.contexts.normal_()
        model.gate.normal_()
    return model


def paths(rows=3, steps=9, seen=0.4):
    x = torch.randn(rows, steps, 4, dtype=torch.float64)
    x[..., 0] = torch.randint(0, 6, (rows, 1))
    x[..., 1] = torch.rand(rows, steps) < seen
    x[:, 0, 1] = 1
    return x


def field(model, system):
    """The system's field, written out."""
    joined = np.append(model.contexts[system].detach().numpy(), 1.0)
    expert = int((model.gate.numpy() @ joined).argmax())
    layers = [(w[expert], b[expert]) for w, b in zip(model.fields.weights, model.fields.biases, strict=True)]

    def slope(_, z):
        h = torch.cat([z, model.contexts[system]])
        for i, (weight, bias) in enumerate(layers):
            h = weight @ h + bias
            h = h if i == len(layers) - 1 else h.tanh()
        return h

    return slope


def test_paths_follow_their_experts_field():
    model, x = make(steps=8), paths()
    dt = 0.2 + torch.rand(3, 9, dtype=torch.float64)
    said, last = model(x, None, Clock(dt=dt))
    for row, system in enumerate(x[:, 0, 0].long().tolist()):
        z = torch.zeros(2, dtype=torch.float64)
        for t in range(9):
            z = x[row, t, 2:] if x[row, t, 1] else z
            ends = torch.stack([torch.zeros_like(dt[row, t]), dt[row, t]])
            with torch.no_grad():
                z = odeint(field(model, system), z, ends, rtol=1e-9, atol=1e-9)[-1]
            assert_close(said[row, t], z, rtol=1e-5, atol=1e-6)
        assert_close(last[row], z, rtol=1e-5, atol=1e-6)


def test_a_cut_changes_nothing():
    model, x = make(), paths(steps=11)
    x[0, 6:, 0] = 5 - x[0, 6:, 0]
    reset = torch.rand(3, 11) < 0.2
    clock = Clock(reset, torch.rand(3, 11) < 0.8, 0.5 + torch.rand(3, 11))
    for when in (None, clock):
        whole, last = model(x, None, when)
        for cuts in (range(12), [0, 4, 4, 11]):
            state, pieces = None, []
            for start, stop in itertools.pairwise(cuts):
                y, state = model(x[:, start:stop], state, None if when is None else when.cut(start, stop))
                pieces.append(y)
            assert_close(torch.cat(pieces, 1), whole)
            assert_close(state, last)
    y, state = model(x[:, :5])
    pieces = torch.autograd.grad(torch.cat([y, model(x[:, 5:], state)[0]], 1).sin().sum(), list(model.parameters()))
    assert_close(pieces, torch.autograd.grad(model(x)[0].sin().sum(), list(model.parameters())))


def test_a_reset_is_a_fresh_start_and_a_gap_is_no_time():
    model, x = make(), paths(steps=8)
    x[..., 1] = torch.rand(3, 8) < 0.3
    reset = torch.zeros(3, 16, dtype=torch.bool)
    reset[:, 8] = True
    packed, _ = model(torch.cat([x, x.flip(0)], 1), None, Clock(reset))
    assert_close(packed, torch.cat([model(x)[0], model(x.flip(0))[0]], 1))
    valid = torch.rand(3, 8) < 0.6
    some, last = model(x.masked_fill(~valid[..., None], torch.nan), None, Clock(valid=valid))
    assert (some[~valid] == 0).all()
    for row in range(3):
        alone, end = model(x[row : row + 1, valid[row]])
        assert_close(some[row, valid[row]], alone[0])
        assert_close(last[row : row + 1], end)


def test_rows_do_not_touch_and_the_future_does_not_leak():
    model, x = make(), paths()
    whole, _ = model(x)
    for row in range(3):
        assert_close(model(x[row : row + 1])[0][0], whole[row])
    x[:, 5:, 2:] += 1
    assert_close(model(x)[0][:, :5], whole[:, :5])


def test_no_parameter_is_dead_and_folders_give_the_same_model_back(tmp_path):
    model, x = make(), paths(rows=8)
    model.follow(x, torch.arange(6) % 2)[0].sin().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all((w.grad != 0).flatten(1).any(1).all() for w in model.fields.weights)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.config == model.config and torch.equal(again(x)[0], model(x)[0])
    assert model.undecayed_parameters() <= {path for path, _ in model.named_parameters()}


def test_narrow_weights_keep_wide_states_and_long_paths_stay_finite():
    model, x = make().bfloat16(), paths().bfloat16()
    said, state = model(x)
    assert said.dtype == torch.bfloat16 and said.isfinite().all() and state.dtype == torch.float32
    model, x = make().float(), paths(rows=1, steps=256).float()
    x[:, 1:, 1] = 0
    said, state = model(x)
    said.square().mean().backward()
    assert said.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_clusters_are_scipys_and_claims_are_made_in_turn():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0, 4.0], [5.0, 0.0, 0.0], [0.0, -6.0, 1.0]])
    points = np.repeat(centres, 7, 0) + rng.normal(size=(21, 3))
    points = points[rng.permutation(21)]
    given = torch.from_numpy(points)
    found = k_means(given, apart(given, 3))
    assert found is not None
    means, theirs = kmeans2(points, centres, minit="matrix")
    assert len({*zip(found[0].tolist(), theirs.tolist(), strict=True)}) == 3
    assert_close(found[1].sort(0).values, torch.from_numpy(means).sort(0).values)
    assert k_means(torch.zeros(5, 2), apart(torch.zeros(5, 2), 2)) is None
    assert k_means(given, apart(given, 3), limit=1) is None
    costs = torch.tensor([[1.0, 2.0, 3.0], [0.5, 4.0, 3.0], [0.1, 0.2, 0.3]])
    assert claim(costs).tolist() == [0, 2, 1]


def test_the_gate_gives_a_cluster_the_expert_that_follows_it_best():
    model, x = make(), paths(rows=8, steps=5)
    x[..., 0] = torch.tensor([0, 1, 2, 3, 5, 5, 1, 3])[:, None]
    with torch.no_grad():
        model.contexts.mul_(0.1)
        model.contexts[::2, 0] += 2
    truth = torch.tensor([1, 0, 1, 0, 1, 0])
    wanted = model.follow(x, truth)[0].detach()
    assert model.regate(x, wanted)
    # 4 has no row, and goes with those whose context is like its own
    assert torch.equal(model.chosen(), truth)
    seen = [0, 1, 2, 3, 5]
    joined = np.append(model.contexts[seen].detach().numpy(), np.ones((5, 1)), 1)
    solved, *_ = np.linalg.lstsq(joined, np.eye(2)[truth[seen].numpy()], rcond=None)
    assert_close(model.gate, torch.from_numpy(solved.T))


def test_where_there_are_no_clusters_the_gate_stays():
    model, x = make(), paths()
    before = model.gate.clone()
    with torch.no_grad():
        model.contexts.zero_()
    assert not model.regate(x, x[..., 2:])
    assert not model.regate(x[:1], x[:1, :, 2:])
    assert torch.equal(model.gate, before) and (model.centres == 0).all()


def test_experts_begin_as_one_and_systems_with_the_first():
    model = MODELS["mixer_experts"](inputs=4, environments=3, width=8, experts=3)
    assert all((w == w[:1]).all() for w in [*model.fields.weights, *model.fields.biases])
    assert model.chosen().tolist() == [0, 0, 0]
    single = MODELS["mixer_experts"](inputs=4, environments=3, width=8, experts=1)
    assert count(model) - 3 * 4 == 3 * (count(single) - 3 * 4)


def test_what_cannot_be_is_refused():
    model, x = make(), paths()
    x[1, 4, 0] = 6
    with pytest.raises(ValueError, match=r"each must be one of 0 to 5"):
        model(x)
    with pytest.raises(ValueError, match="experts is 0"):
        make(experts=0)
    with pytest.raises(ValueError, match="inputs is 2"):
        make(inputs=2)
    with pytest.raises(ValueError, match="method is 'newton'"):
        make(method="newton")


def test_a_budget_is_met_by_its_width_alone():
    solved = solve_width("mixer_experts", dict(inputs=3, environments=4), 20_000)
    assert abs(count(MODELS["mixer_experts"](**solved)) / 20_000 - 1) < 0.03
