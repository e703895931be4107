"""The Jordan network against torch.nn.RNN where it is one, and against its outputs fed back by hand: no package has it.

By hand the outputs themselves go round; the mixer never makes them inside its loop.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.cell.jordan import Jordan

D, N = 5, 8


@pytest.mark.parametrize("hidden", [N, 3])
def test_outputs_without_a_memory_of_their_own_are_torchs(hidden):
    mixer = Jordan(D, hidden=hidden, decay=0.0).double()
    oracle = torch.nn.RNN(D, hidden, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        oracle.weight_ih_l0.copy_(mixer.input.weight)
        oracle.weight_hh_l0.copy_(mixer.feedback.weight @ mixer.output.weight)
        oracle.bias_ih_l0.copy_(mixer.input.bias)
        oracle.bias_hh_l0.zero_()
    x = torch.randn(3, 11, D, dtype=torch.float64)
    y, (h, _) = mixer(x)
    want, last = oracle(x)
    assert_close(y, mixer.output(want))
    assert_close(h, last[0])


def test_the_outputs_come_back():
    mixer = Jordan(D, hidden=N, decay=0.7).double()
    x = torch.randn(2, 11, D, dtype=torch.float64)
    first, state = mixer(x[:, :4])
    second, _ = mixer(x[:, 4:], state)
    y = torch.cat([first, second], 1)
    said = context = torch.zeros(2, D, dtype=torch.float64)
    for t in range(11):
        context = said + 0.7 * context
        hidden = torch.tanh(mixer.input(x[:, t]) + mixer.feedback(context))
        said = mixer.output(hidden)
        assert_close(y[:, t], said)


def test_half_precision_does_not_round_the_decay():
    """To 1, in bfloat16, from which a context would never fade."""
    mixer = Jordan(D, decay=0.999)
    with torch.no_grad():
        for p in mixer.parameters():
            p.zero_()
        start = torch.zeros(1, D), torch.ones(1, D)
        _, (_, context) = mixer.bfloat16()(torch.zeros(1, 1000, D, dtype=torch.bfloat16), start)
    assert_close(context, torch.full((1, D), 0.999**1000), rtol=1e-4, atol=0)


def test_what_means_nothing_is_refused():
    with pytest.raises(ValueError, match=r"decay is 1\.0: it must be at least 0 and below 1"):
        Jordan(D, decay=1.0)
    with pytest.raises(ValueError, match="hidden is 0: it must be at least 1"):
        Jordan(D, hidden=0)
