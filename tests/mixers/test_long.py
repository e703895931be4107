"""A stream in float32 stays the stream in float64: every architecture at 65,536 steps, its decays at both ends.

Every vector of parameters (decays, time steps, biases of gates) is moved from where it starts by 3, up and down in
turn: in half of the channels memory is hardly left, in the other half it hardly fades.
"""

import copy

import pytest
import torch

from recurra import MIXERS

WIDTH, STEPS, FAR, BOUND = 8, 65_536, 3.0, 1e-3
# where a state grows, a step costs all steps before it; these run by a loop in Python, and at 65,536 steps their errors
# are 3e-6, 1.5e-3 and 2e-6, of the memories at most 3e-4 and of the liquid neurons 1e-5
FEWER, FEWEST = 4096, 1024
BY_LOOP = ("hippo", "lmu", "fast_weights_rnn")
# milliseconds a step
SLOWLY = ("ntm", "dnc", "ltc")
# these go segment by segment: at 65,536 steps, twice each, their errors are at most 6e-7, 6e-7, 4e-7 and 2e-5
BY_LOOP += ("rmt", "armt", "block_recurrent", "temporal_latent_bottleneck")
# and these chunk by chunk: 3e-5, 8e-6, 2e-6, 2e-5, 2e-6 and 2e-5; but 5e-2 of moneta, at single steps (half of all are
# below 9e-6), whose weights are sums over a power of their own norm: the more the sums have faded, the more they turn
BY_LOOP += ("titans", "ttt_linear", "ttt_mlp", "miras", "yaad", "memora", "moneta")
# Titans beside attention: 2e-5, 2e-6, and 1.4e-3 of mac at single steps (half of all are below 8e-7), where a head's
# answer passes so near to zero that its norm shows rounding; it does not stay
BY_LOOP += ("titans_mag", "titans_mal", "titans_mac")
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
    steps = FEWEST if name in SLOWLY else FEWER if mixer.grows or name in BY_LOOP else STEPS
    x = torch.randn(1, steps, WIDTH)
    y, _ = mixer(x)
    truth, _ = copy.deepcopy(mixer).double()(x.double())
    assert torch.isfinite(y).all() and torch.isfinite(truth).all()
    error = ((y.double() - truth).abs().max() / truth.abs().max()).item()
    assert error <= (DRIFT[name] * steps if name in DRIFT else BOUND)
