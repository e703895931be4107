"""Wirings have the layers, the numbers of synapses and the reach that the paper gives them."""

import pytest
import torch

from recurra.parts.wiring import circuit, full

INPUTS, UNITS, OUTPUTS = 5, 30, 8
# of 22 that are no motors, 0.4 command; half of each layer is reached
COMMAND, INTER = 8, 14


@pytest.fixture
def wiring():
    return circuit(INPUTS, UNITS, OUTPUTS, 0.5, torch.Generator().manual_seed(0))


def layers(recurrent):
    return {
        (a, b): block
        for a, rows in zip("mci", recurrent.split([OUTPUTS, COMMAND, INTER]), strict=True)
        for b, block in zip("mci", rows.split([OUTPUTS, COMMAND, INTER], 1), strict=True)
    }


def test_layers_reach_only_the_next(wiring):
    between = layers(wiring.recurrent)
    assert {pair for pair, block in between.items() if (block != 0).any()} == {("i", "c"), ("c", "c"), ("c", "m")}
    assert (wiring.sensory[:, : OUTPUTS + COMMAND] == 0).all()


def test_neurons_have_as_many_synapses_as_the_sparsity_leaves(wiring):
    between = layers(wiring.recurrent)
    assert ((between["i", "c"] != 0).sum(1) >= COMMAND // 2).all()
    assert ((between["c", "m"] != 0).sum(0) >= COMMAND // 2).all()
    assert 1 <= (between["c", "c"] != 0).sum() <= COMMAND
    assert ((wiring.sensory != 0).sum(1) >= INTER // 2).all()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_out(seed):
    """However sparse: every inter neuron hears an input, every command neuron is heard by a motor."""
    sensory, recurrent = circuit(2, UNITS, OUTPUTS, 0.95, torch.Generator().manual_seed(seed))
    between = layers(recurrent)
    assert (sensory[:, OUTPUTS + COMMAND :] != 0).any(0).all()
    assert (between["i", "c"] != 0).any(0).all()
    assert (between["c", "m"] != 0).any(0).all() and (between["c", "m"] != 0).any(1).all()


def test_signs_have_their_odds():
    generator = torch.Generator().manual_seed(0)
    everything = torch.cat(full(50, 100, generator))
    assert set(everything.unique().tolist()) == {-1, 1} and 0.63 < (everything > 0).float().mean() < 0.7
    sparse = torch.cat(circuit(50, 200, 20, 0.2, generator))
    assert 0.47 < (sparse[sparse != 0] > 0).float().mean() < 0.53


def test_what_cannot_be_wired_is_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="units is 10: a circuit of 8 outputs needs at least 11"):
        circuit(4, 10, 8, 0.5, generator)
    with pytest.raises(ValueError, match=r"sparsity is 1\.0: it must be at least 0 and below 1"):
        circuit(4, 20, 8, 1.0, generator)
