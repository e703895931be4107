"""Fast weights that attend to the recent past: no package has them, so two derivations.

The paper's own second form keeps no matrix: what the fast weights do to a vector is attention to all past states.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.mixers.cell.fast_weights_rnn import FastWeightsRNN


@pytest.mark.parametrize("loops", [1, 3])
def test_equals_attention_to_the_past(loops):
    mixer = FastWeightsRNN(8, loops=loops, decay=0.9, rate=0.4).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.randn(2, 15, 8, dtype=torch.float64)
    past, outputs = [torch.zeros(2, 8, dtype=torch.float64)], []
    for t in range(15):
        drawn = x[:, t] @ mixer.input.weight.T + mixer.input.bias + past[-1] @ mixer.recurrent.T
        states = torch.stack(past, 1)
        left = 0.9 ** torch.arange(t, -1, -1, dtype=torch.float64)
        h = drawn.relu()
        for _ in range(loops):
            scores = torch.einsum("bjd,bd->bj", states, h) * left * 0.4
            h = F.layer_norm(drawn + torch.einsum("bj,bjd->bd", scores, states), (8,), *mixer.norm).relu()
        past.append(h)
        outputs.append(h)
    y, (last, fast) = mixer(x)
    assert_close(y, torch.stack(outputs, 1))
    assert_close(last, outputs[-1])
    left = 0.9 ** torch.arange(14, -1, -1, dtype=torch.float64)
    assert_close(fast.view(2, 8, 8), 0.4 * torch.einsum("j,bjd,bje->bde", left, *[torch.stack(past[:-1], 1)] * 2))


def test_without_fast_weights_it_is_a_normed_recurrent_network():
    mixer = FastWeightsRNN(8, rate=0.0).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    h = torch.zeros(1, 8, dtype=torch.float64)
    y, _ = mixer(x)
    for t in range(6):
        h = F.layer_norm(mixer.input(x[:, t]) + h @ mixer.recurrent.T, (8,)).relu()
        assert_close(y[:, t], h)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"decay is 1\.0: it must be at least 0 and below 1"):
        FastWeightsRNN(8, decay=1.0)
    with pytest.raises(ValueError, match="loops is 0: it must be at least 1"):
        FastWeightsRNN(8, loops=0)
