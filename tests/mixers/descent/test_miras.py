"""The Miras family: no authors' code is public, so what stands here are identities between its members and neighbours.

The engine's losses, retentions and chunks are held to autograd and to closed forms in tests/ops/test_descent.py.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.delta.deltanet import DeltaNet
from recurra.mixers.descent.memora import Memora
from recurra.mixers.descent.miras import Miras
from recurra.mixers.descent.moneta import Moneta
from recurra.mixers.descent.titans import Titans
from recurra.mixers.descent.yaad import Yaad

WIDTH, STEPS = 8, 21
DEEP = {"heads": 1, "depth": 2, "momentum": False, "normalised": True}


def same(mixer, **choices):
    """The mixer's weights under the four choices, and what both make of the same input."""
    x = torch.randn(2, STEPS, WIDTH, dtype=torch.float64)
    mixer, miras = mixer.double(), Miras(WIDTH, rate=mixer.config["rate"], **choices).double()
    miras.load_state_dict(mixer.state_dict())
    return mixer(x)[0], miras(x)[0]


def test_titans_is_a_choice():
    y, z = same(Titans(WIDTH), depth=2, threshold=False, retention="decay")
    assert_close(z, y, rtol=0, atol=0)


def test_yaad_is_a_choice():
    y, z = same(Yaad(WIDTH), **DEEP, threshold=True, retention="decay")
    assert_close(z, y, rtol=0, atol=0)


def test_moneta_is_a_choice():
    y, z = same(Moneta(WIDTH), **DEEP, power=3.0, threshold=False, retention="lq", strength=4.0)
    assert_close(z, y, rtol=0, atol=0)


def test_moneta_of_two_norms_is_titans_network_without_momentum():
    y, z = same(Moneta(WIDTH, power=2.0, norm=2.0), **DEEP, threshold=False, retention="decay")
    assert_close(z, y, rtol=1e-12, atol=1e-12)


def test_a_matrix_of_one_step_is_the_delta_rule():
    miras = Miras(
        WIDTH, heads=2, chunk=1, rate=1.0, momentum=False, threshold=False, retention="decay"
    ).double()  # fmt: skip
    delta, x = DeltaNet(WIDTH, heads=2).double(), torch.randn(2, STEPS, WIDTH, dtype=torch.float64)
    learner = miras.learner
    with torch.no_grad():
        learner.initial.zero_()
        learner.gate.weight.zero_()
        # nothing fades
        learner.gates.weight[2:].zero_()
        learner.gates.bias[:2], learner.gates.bias[2:] = 0, -800
        delta.project.weight.copy_(torch.cat([learner.project.weight, learner.gates.weight[:2]]))
        delta.conv.weight.copy_(learner.conv.weight)
        delta.out.weight.copy_(0.5 * learner.out.weight)
        # DeltaNet asks with queries shorter by the root of their number, which its norm takes up but for the 1e-5
        delta.norm.epsilon = learner.norm.epsilon / 4
    assert_close(miras(x)[0], delta(x)[0], rtol=1e-10, atol=1e-12)


def test_memora_of_no_rate_forgets_to_equal_weights():
    mixer = Memora(WIDTH, rate=1e-12).double()
    with torch.no_grad():
        mixer.learner.gates.bias[1] = 5.0
    _, (_, dual, *_) = mixer(torch.randn(1, 64, WIDTH, dtype=torch.float64))
    for layer in mixer.learner.net.layers(dual):
        weights = mixer.learner.mirror.weights(layer)
        assert_close(weights, torch.ones_like(weights), rtol=1e-6, atol=1e-6)


def test_what_memoras_answers_share_does_not_cost_the_digits_of_what_they_do_not():
    """All features of an answer are near the sum of what enters, some thousand times what they differ by."""
    mixer, x = Memora(64), torch.randn(2, 40, 64)
    with torch.no_grad():
        y, _ = mixer(x)
        truth, _ = mixer.double()(x.double())
    # 1e-3 where the sum is rounded, 1e-5 where it is not
    assert (y - truth).abs().max() <= 3e-5 * truth.abs().max()


@pytest.mark.parametrize(("cls", "wrong", "said"), [
    (Miras, {"retention": "none"}, "retention is 'none': it must be one of decay, lq, kl, elastic"),
    (Miras, {"power": 0.5}, r"power is 0\.5: it must be at least 1"),
    (Miras, {"strength": 0.0}, r"threshold is 0\.0: it must be greater than 0"),
    (Moneta, {"norm": 1.0}, r"q is 1\.0: it must be at least 2"),
    (Moneta, {"power": 0.0}, r"power is 0\.0: it must be at least 1"),
    (Yaad, {"rate": -1.0}, r"rate is -1\.0: it must be greater than 0"),
    (Memora, {"chunk": 0}, "chunk is 0: it must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(cls, wrong, said):
    with pytest.raises(ValueError, match=said):
        cls(WIDTH, **wrong)
