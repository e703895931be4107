"""Written weights: the MLP that they are, what depends on what, and what is kept of the tasks before."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.models import MODELS
from recurra.state import leaves


def make(**more):
    torch.manual_seed(0)
    sizes = dict(inputs=4, outputs=2, tasks=3, width=16, depth=1, target=[16, 8], chunk=32)
    return MODELS["hypernetwork"](**{**sizes, **more}).double().eval()


def asked(task, features):
    return torch.cat([torch.full_like(features[..., :1], task), features], -1)


def test_steps_go_through_the_mlp_that_was_written():
    model, features = make(), torch.randn(2, 5, 3, dtype=torch.float64)
    for task in range(3):
        numbers = model.write(torch.tensor([task]))[0].detach().numpy()
        h, at = features.numpy(), 0
        for i, (fan_in, fan_out) in enumerate([(3, 16), (16, 8), (8, 2)]):
            weight = numbers[at : at + fan_in * fan_out].reshape(fan_out, fan_in)
            at += fan_in * fan_out
            h = h @ weight.T + numbers[at : at + fan_out]
            at += fan_out
            h = h if i == 2 else np.maximum(h, 0)
        assert at == len(numbers)
        assert_close(model(asked(task, features))[0], torch.from_numpy(h))


def test_tasks_may_be_mixed_within_a_row():
    model, x = make(), torch.randn(2, 9, 4, dtype=torch.float64)
    x[..., 0] = torch.randint(0, 3, (2, 9))
    together, _ = model(x)
    for row, step in itertools.product(range(2), range(9)):
        assert_close(together[row, step], model(x[row : row + 1, step : step + 1])[0][0, 0])


@pytest.mark.parametrize("pattern", ["gru", "lstm", "mamba2"])
def test_a_layer_depends_on_the_layers_before_it_and_on_no_later_one(pattern):
    model, which = make(pattern=pattern), torch.arange(3)
    sizes, first = model.sizes, [0, *itertools.accumulate(model.chunks)][:-1]
    model.requires_grad_(False)
    before = model.write(which).split(sizes, 1)
    for layer, place in enumerate(first):
        own = model.places[place].clone()
        model.places[place] += 1.0
        after = model.write(which).split(sizes, 1)
        model.places[place] = own
        for other, (one, two) in enumerate(zip(before, after, strict=True)):
            assert torch.equal(one, two) == (other < layer)


def test_it_begins_at_the_size_of_a_usual_net():
    torch.manual_seed(0)
    model = MODELS["hypernetwork"](inputs=65, outputs=64, tasks=8, width=64, depth=1, target=[64, 64])
    layers = model.write(torch.arange(8)).split(model.sizes, 1)
    for layer in layers:
        assert 0.5 < layer.std() * 64**0.5 < 2


def test_drift_is_the_mean_over_tasks_of_squared_distances():
    model = make()
    kept = model.write(torch.arange(2)).detach()
    assert model.drift(kept) == 0
    away = kept + torch.randn_like(kept)
    wanted = sum(float(np.square(row).sum()) for row in (away - kept).numpy()) / 2
    assert_close(model.drift(away), torch.tensor(wanted, dtype=torch.float64))
    grads = torch.autograd.grad(model.drift(kept), [p for p in model.parameters()], allow_unused=True)
    assert all(g is None or (g == 0).all() for g in grads)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_what_was_written_for_a_task_is_kept_while_another_is_learned(beta):
    model = make(target=[16], width=24).float()
    torch.manual_seed(1)
    x = torch.randn(64, 1, 3)
    wanted = [x[..., :2].sin(), -x[..., 1:].sin()]

    def error(task):
        return (model(asked(task, x))[0] - wanted[task]).square().mean()

    kept, first = None, None
    for task in range(2):
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(40):
            loss = error(task) if kept is None else error(task) + beta * model.drift(kept)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            kept = model.write(torch.arange(1))
            errors = [float(error(0)), float(error(1))]
        first = errors[0] if task == 0 else first
    assert errors[1] < 0.1
    assert (errors[0] < first + 0.05) == (beta > 0)


def test_what_cannot_be_is_refused():
    model, x = make(), torch.zeros(1, 2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"each must be one of 0 to 2"):
        model(asked(3, x[..., 1:]))
    with pytest.raises(ValueError, match=r"each must be one of 0 to 2"):
        model(asked(0.5, x[..., 1:]))
    with pytest.raises(ValueError, match="no notion of time"):
        model(x, None, Clock(dt=torch.ones(1, 2)))
    with pytest.raises(ValueError, match="largest layer has 136 numbers"):
        make(chunk=137)
    with pytest.raises(ValueError, match="target is 0"):
        make(target=[8, 0])
    with pytest.raises(ValueError, match="inputs is 1"):
        make(inputs=1)


def test_there_is_no_state_through_time():
    model, x = make(), torch.zeros(2, 5, 4, dtype=torch.float64)
    assert not list(leaves(model(x)[1])) and not list(leaves(model.initial_state(2)))
    assert model(x[:, :0])[0].shape == (2, 0, 2)
