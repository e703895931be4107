"""A stream in float32 stays the stream in float64: every architecture at 65,536 steps, its decays at both ends.

Every vector of parameters (decays, time steps, biases of gates) is moved from where it starts by 3, up and down in
turn: in half of the channels memory is hardly left, in the other half it hardly fades.
"""

import copy

import pytest
import torch

from recurra import MIXERS

WIDTH, STEPS, FAR, BOUND = 8, 65_536, 3.0, 1e-3
# where a state grows, a step costs all steps before it; HiPPO's steps differ in length and cost most: 2e-6 after all
FEWER, FEWEST = 4096, 1024
BY_LOOP = ("hippo",)
# it sorts what it uses, and where two numbers nearly tie a rounding decides: 2e-1 after 65,536 steps;
# after 8,192 4e-2, by its loop 3e-2
SORTS = ("dnc",)
# these go segment by segment: at 65,536 steps, twice each, their errors are at most 6e-7, 6e-7, 4e-7 and 2e-5
BY_LOOP += ("rmt", "armt", "block_recurrent", "temporal_latent_bottleneck")
# and these chunk by chunk: 2e-6 and 2e-5; but 5e-2 of moneta, at single steps (half of all are below 9e-6), whose
# weights are sums over a power of their own norm: the more the sums have faded, the more they turn
BY_LOOP += ("miras", "memora", "moneta")
# segments and chunks: 1.4e-3 at single steps (half of all are below 8e-7), where a head's answer passes so near to zero
# that its norm shows rounding; it does not stay
BY_LOOP += ("titans_mac",)
# before training its state runs round a limit cycle, where errors of phase add up: so much a step, hence 1.5e-3 above;
# springs that lose nothing swing on at the pace of their rounded step for ever: 3.5e-3 after all steps
# a unitary matrix keeps every error of phase that its own rounding makes: 4e-8 to 6e-8 a step were measured
DRIFT = {"lmu": 5e-8, "unicornn": 1e-7, "urnn": 1e-7}


def far_apart(mixer):
    """The mixer with neighbouring entries of every vector moved apart."""
    with torch.no_grad():
        for p in mixer.parameters():
            if p.ndim < 2:
                p.add_(FAR * (1 - 2.0 * (torch.arange(p.numel()) % 2)).view_as(p))
    return mixer


@torch.no_grad()
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", MIXERS)
def test_float32_stays_with_float64(name):
    mixer = far_apart(MIXERS[name](WIDTH))
    steps = FEWEST if name in SORTS else FEWER if mixer.grows or name in BY_LOOP else STEPS
    x = torch.randn(1, steps, WIDTH)
    y, _ = mixer(x)
    truth, _ = copy.deepcopy(mixer).double()(x.double())
    assert torch.isfinite(y).all() and torch.isfinite(truth).all()
    error = ((y.double() - truth).abs().max() / truth.abs().max()).item()
    assert error <= (DRIFT[name] * steps if name in DRIFT else BOUND)
