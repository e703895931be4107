"""The optimiser, the learning rate and the gradient's norm, each against numbers worked out apart."""

import pytest
import torch
from torch import nn
from train.tiny import TinyModel

from recurra.train.optimisers import adamw, clip, groups
from recurra.train.schedules import warmup_cosine


def test_only_matrices_that_the_model_does_not_name_are_decayed():
    model = TinyModel(vocabulary=5, width=4)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, undecayed = groups(model, 0.3)
    assert decayed["weight_decay"] == 0.3 and undecayed["weight_decay"] == 0.0
    assert {names[id(p)] for p in decayed["params"]} == {
        "embedding.weight", "cell.weight_ih", "cell.weight_hh", "out.weight",
    }  # fmt: skip
    assert {names[id(p)] for p in undecayed["params"]} == {"decay", "out.bias", "cell.bias_ih", "cell.bias_hh"}


def test_a_frozen_parameter_is_left_out():
    model = TinyModel(vocabulary=5, width=4)
    model.embedding.weight.requires_grad_(False)
    assert all(p is not model.embedding.weight for group in groups(model, 0.1) for p in group["params"])


def test_adamw_makes_the_steps_of_its_equations():
    """Loshchilov and Hutter 2019, algorithm 2, worked out in float64."""
    torch.manual_seed(1)
    model = TinyModel(vocabulary=5, width=4).double()
    optimiser = adamw(model, 0.3, (0.9, 0.95))
    weight = model.cell.weight_hh
    w, m, v = weight.detach().clone(), 0.0, 0.0
    for t in range(1, 4):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        g, rate = weight.grad.clone(), 0.01 * t
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w = w - rate * 0.3 * w - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach(), w)


def test_the_norm_is_that_before_clipping_and_in_float32():
    one, two = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(2))
    one.grad, two.grad = torch.tensor([300.0, 0, 0], dtype=torch.bfloat16), torch.tensor([0.0, 401.0])
    norm = clip([one, two, nn.Parameter(torch.zeros(1))], 1.0)
    assert norm == pytest.approx((300**2 + 401**2) ** 0.5, rel=1e-6)
    assert two.grad[1] == pytest.approx(401 / norm, rel=1e-5)
    assert clip([two], 5.0) == pytest.approx(401 / norm, rel=1e-5)
    assert two.grad[1] == pytest.approx(401 / norm, rel=1e-5), "what is short enough is left alone"


def test_the_learning_rate_rises_then_falls_to_its_floor():
    rates = [warmup_cosine(step, 100, 10, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) == rates[10]
    assert rates[-1] == pytest.approx(0.1)
    assert rates[54] > 0.55 > rates[55]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert warmup_cosine(0, 1, 0, 1.0, 0.1) == 1.0, "a run of one step"
    assert warmup_cosine(2, 3, 50, 1.0, 0.1) == pytest.approx(3 / 50), "shorter than its warm-up"
