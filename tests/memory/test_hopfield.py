"""Hopfield networks: against attention, against the rule written out, and against what theory says of them."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.memory.hopfield import ClassicalHopfield, Hopfield, energy, update


def patterns(count, units):
    return torch.randn(count, units, dtype=torch.float64).sign()


def test_hebbs_rule_by_hand():
    stored = torch.tensor([[1.0, -1, 1], [1, 1, -1]])
    weight = ClassicalHopfield.hebbian(stored).weight
    assert_close(weight, torch.tensor([[0, 0, 0], [0, 0, -2 / 3], [0, -2 / 3, 0]]))


def test_a_damaged_pattern_comes_back():
    stored = patterns(6, 100)
    damaged = stored.clone()
    damaged[:, :15] *= -1
    assert torch.equal(ClassicalHopfield.hebbian(stored).recall(damaged), stored)


def test_energy_never_rises_one_unit_after_another():
    network = ClassicalHopfield.hebbian(patterns(12, 40))
    state = patterns(1, 40)[0]
    last = network.energy(state)
    for unit in range(40):
        state = state.clone()
        state[unit] = torch.sign(network.weight[unit] @ state)
        now = network.energy(state)
        assert now <= last + 1e-12
        last = now


def test_all_at_once_two_states_may_take_turns():
    network = ClassicalHopfield(torch.tensor([[0.0, -1], [-1, 0]]))
    state = torch.tensor([1.0, 1])
    other = network.together(state)
    assert torch.equal(other, -state) and torch.equal(network.together(other), state)


def test_projection_holds_as_many_patterns_as_units_allow():
    """Where Hebb's rule has long failed: 30 patterns of 40 units."""
    stored = patterns(30, 40)
    assert torch.equal(ClassicalHopfield.projection(stored).together(stored), stored)
    assert not torch.equal(ClassicalHopfield.hebbian(stored).together(stored), stored)


def test_one_update_is_attention():
    query, keys = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(7, 8, dtype=torch.float64)
    attended = F.scaled_dot_product_attention(query, keys.expand(3, 7, 8), keys.expand(3, 7, 8))
    assert_close(update(query, keys, 8**-0.5), attended, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
def test_continuous_energy_never_rises(beta):
    query, keys = torch.randn(9, 8, dtype=torch.float64), torch.randn(7, 8, dtype=torch.float64)
    levels = torch.stack([energy(update(query, keys, beta, steps), keys, beta) for steps in range(6)])
    assert (levels.diff(dim=0) <= 1e-12).all()


def test_three_regimes():
    keys = F.normalize(torch.randn(6, 32, dtype=torch.float64), dim=-1)
    query = keys[2] + 0.05 * torch.randn(32, dtype=torch.float64)
    assert_close(update(query, keys, 1e-9), keys.mean(0), rtol=0, atol=1e-8)
    assert_close(update(query, keys, 500.0), keys[2], rtol=0, atol=1e-8)
    clustered = torch.cat([keys[:1] + 1e-3 * torch.randn(3, 32, dtype=torch.float64), keys[3:]])
    mean = clustered[:3].mean(0)
    assert_close(update(keys[0], clustered, 60.0, 5), mean, rtol=0, atol=1e-3)


def test_the_layer_is_attention_to_its_patterns():
    layer = Hopfield(16, patterns=5, heads=2, steps=2).double()
    x = torch.randn(3, 4, 16, dtype=torch.float64)
    read = layer.query(x).unflatten(-1, (2, 8)).transpose(1, 2)
    for _ in range(2):
        stored = layer.patterns.expand(3, 2, 5, 8)
        read = F.scaled_dot_product_attention(read, stored, stored)
    assert_close(layer(x), layer.out(read.transpose(1, 2).flatten(-2)))
    assert_close(layer(x)[1, 2], layer(x[1:2, 2:3])[0, 0])
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{"patterns": 0}, {"heads": 0}, {"steps": 0}, {"heads": 3}])
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        Hopfield(16, **wrong)
