"""RSA against its definition as one matrix, softmax and powers of the decay. No package has it: derived twice, by hand.

The dense form is the paper's; the recurrence and the kept keys are another way to the same numbers.
"""

import math

import pytest
import torch
from oracles.stored import each_way
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.rsa import RSA


def dense(mixer, x):
    """Every pair of steps, with no state."""
    B, T = x.shape[:2]
    q, k, v = (p(x).view(B, T, mixer.heads, -1).transpose(1, 2) for p in (mixer.query, mixer.key, mixer.value))
    apart = (torch.arange(T)[:, None] - torch.arange(T)).double()
    weight = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(apart < 0, -torch.inf).softmax(-1)
    gap = apart.clamp(min=0) / mixer.dilation
    # a negative number has no power between the multiples, where none is asked for
    powers = [torch.tanh(eta) ** gap.floor() for eta in mixer.regular]
    for i, (nu, theta) in enumerate(zip(mixer.cyclical, mixer.angle, strict=True)):
        wave = torch.sin if i % 2 else torch.cos
        powers.append(torch.sigmoid(nu) ** gap * wave(gap * theta))
    recurrence = torch.stack(powers).masked_fill((apart < 1) | (apart % mixer.dilation > 0), 0)
    gate = torch.sigmoid(mixer.balance)[:, None, None]
    return mixer.out((((1 - gate) * weight + gate * recurrence) @ v).transpose(1, 2).flatten(2))


@each_way
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("cyclical", [0, 2, 3])
def test_equals_the_matrix(way, cyclical, dilation):
    mixer = RSA(12, heads=3, cyclical=cyclical, dilation=dilation).double()
    x = torch.randn(2, 19, 12, dtype=torch.float64)
    with use(way):
        y, _ = mixer(x)
    assert_close(y, dense(mixer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 3])
def test_many_tokens_continue_from_a_carried_state(dilation):
    mixer = RSA(8, dilation=dilation).double()
    x = torch.randn(2, 19, 8, dtype=torch.float64)
    _, state = mixer(x[:, :8])
    assert_close(mixer(x[:, 8:], state)[0], dense(mixer, x)[:, 8:], rtol=1e-12, atol=1e-12)


def test_the_gate_goes_from_attention_to_recurrence():
    mixer = RSA(8).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        mixer.balance.fill_(100)
        # nothing has come before the first step, and attention does not look
        assert_close(mixer(x)[0][:, 0], torch.zeros(1, 8, dtype=torch.float64))
        mixer.balance.fill_(-100)
        assert_close(mixer(x)[0][:, 0], mixer.out(mixer.value(x[:, 0])))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        RSA(10)
    with pytest.raises(ValueError, match="cyclical is 5: it must be between 0 and heads, which is 4"):
        RSA(8, cyclical=5)
    with pytest.raises(ValueError, match="dilation is 0: it must be at least 1"):
        RSA(8, dilation=0)
