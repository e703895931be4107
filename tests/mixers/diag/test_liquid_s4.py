"""Liquid-S4 has no code to trust: the authors' looks ahead and its steps leave out what is liquid. Two derivations.

For small inputs it is the plain product of what is kept and what comes in, which is expanded here in products of
inputs, as the paper does, until the rest is nothing; without the liquid term it is S4D, which has an oracle.
"""

import itertools

import pytest
import torch
from largest import Largest
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.liquid_s4 import LiquidS4
from recurra.mixers.diag.s4d import S4D
from recurra.ops.liquid import chunk


def _expand(mixer, x, degree):
    """The paper's series: h_t as sums of products of up to `degree` inputs, by where the liquid terms stand."""
    log_decay, write, read = mixer.space.coefficients()
    decay, steps = log_decay.exp(), x.shape[1]
    states = []
    for t in range(steps):
        h = torch.zeros_like(write).expand(len(x), -1, -1).clone()
        for first in range(t + 1):
            between = range(first + 1, t + 1)
            for count in range(min(degree, len(between) + 1)):
                for places in itertools.combinations(between, count):
                    product = write * x[:, first, :, None] * decay ** (t - first - count)
                    for place in places:
                        product = product * write * x[:, place, :, None]
                    h = h + product
        states.append((read * h).sum(-1).real)
    return torch.stack(states, 1)


def _read(mixer, x):
    """What is read of the states, without the skip, the gate and the mix."""
    reads = []
    hook = mixer.scan.register_forward_hook(lambda scan, inputs, outputs: reads.append(outputs[0]))
    mixer(x)
    hook.remove()
    return reads[0]


@torch.no_grad()
def test_equals_the_papers_series_where_nothing_is_held_back():
    mixer = LiquidS4(2, units=4).double()
    with torch.no_grad():
        mixer.space.log_step.fill_(-1.0)
    # 1e-3 of the bound: what tanh changes is a millionth of a millionth
    x = 1e-4 * torch.randn(1, 7, 2, dtype=torch.float64)
    y = _read(mixer, x)
    errors = [float((_expand(mixer, x, degree) - y).abs().max() / y.abs().max()) for degree in (1, 2, 3)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] and errors[2] < 1e-6


def test_without_the_liquid_term_it_is_s4d():
    """The liquid term is of second order in the input: half of f(x) - f(-x) has none of it, but for the third."""
    liquid, plain = LiquidS4(3, units=6, start="legs").double(), S4D(3, units=6, start="legs").double()
    plain.load_state_dict(liquid.state_dict())
    x = 1e-5 * torch.randn(2, 40, 3, dtype=torch.float64)
    odd = (_read(liquid, x) - _read(liquid, -x)) / 2
    want = plain.space(x, plain.initial_state(2), None)[0] - plain.space.skip * x
    assert_close(odd / 1e-5, want / 1e-5, rtol=0, atol=1e-7)


@pytest.mark.parametrize("start", ["lin", "inv", "legs", "real"])
def test_no_input_makes_it_grow(start):
    mixer = LiquidS4(4, units=8, start=start)
    for x in (torch.full((1, 3000, 4), 50.0), torch.full((1, 3000, 4), -50.0), 50 * torch.randn(1, 3000, 4)):
        y, h = mixer(x)
        assert torch.isfinite(y).all() and h.abs().max() < 50 * 3000


@pytest.mark.parametrize("implementation", ["native", "chunk"])
def test_states_exist_for_one_block_only(implementation):
    mixer = LiquidS4(8, units=32)
    x = torch.randn(1, 4 * chunk.BLOCK + 1, 8, requires_grad=True)
    with use(implementation), Largest() as largest:
        mixer(x)[0].sum().backward()
    # of 16 complex64 a feature
    assert 0 < largest.nbytes <= 1.1 * chunk.BLOCK * 8 * 16 * 8
