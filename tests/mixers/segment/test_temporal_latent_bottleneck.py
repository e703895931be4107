"""The temporal latent bottleneck against a loop over steps, and at its limits.

The authors' code is for a library of 2020 that no longer runs; it was read for what a segment does, and reads a segment
in both directions, which ours does not. So there are two derivations: segments at once, and one step after another.
"""

import torch
from torch.testing import assert_close

from recurra.mixers.segment.temporal_latent_bottleneck import TemporalLatentBottleneck


def small():
    return TemporalLatentBottleneck(8, segment=4, states=3, heads=1).double()


def test_equals_a_loop_over_steps():
    mixer, x = small(), torch.randn(14, 8, dtype=torch.float64)
    turn = mixer.base ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)

    def turned(z, place):
        pairs = torch.view_as_complex(z.view(4, 2)) * torch.polar(torch.ones(4).double(), place * turn)
        return torch.view_as_real(pairs).flatten()

    def read(query, keys, values, out):
        return out((torch.stack(keys) @ query / 8**0.5).softmax(0) @ torch.stack(values))

    def cross(layer, z, seen):
        return read(layer.query(z), [layer.key(s) for s in seen], [layer.value(s) for s in seen], layer.out)

    norms, feed_forward = mixer.norms, mixer.feed_forward
    slow, y = list(mixer.states), []
    for segment in x.split(4):
        keys, values, fast = [], [], []
        for place, z in enumerate(segment):
            keys.append(turned(mixer.key(z), place))
            values.append(mixer.value(z))
            a = z + read(turned(mixer.query(z), place), keys, values, mixer.out)
            b = a + feed_forward[0](norms[0](a))
            c = b + cross(mixer.down, norms[1](b), [norms[2](s) for s in slow])
            fast.append(c + feed_forward[1](norms[3](c)))
            y.append(fast[-1] - z)
        if len(segment) == 4:
            seen = [norms[5](f) for f in fast]
            slow = [s + cross(mixer.up, norms[4](s), seen) for s in slow]
            slow = [s + feed_forward[2](norms[6](s)) for s in slow]
    whole, (states, _) = mixer(x[None])
    assert_close(whole[0], torch.stack(y), rtol=1e-10, atol=1e-12)
    assert_close(states[0], torch.stack(slow), rtol=1e-10, atol=1e-12)


def test_a_segment_knows_of_others_through_the_slow_states_alone():
    mixer, x = small(), torch.randn(2, 12, 8, dtype=torch.float64)
    assert not torch.allclose(mixer(x)[0][:, 8:], mixer(x[:, 8:])[0])
    with torch.no_grad():
        mixer.down.out.weight.zero_()
    assert_close(mixer(x)[0][:, 8:], mixer(x[:, 8:])[0])


def test_slow_states_that_nothing_is_written_to_stay():
    mixer = small()
    with torch.no_grad():
        mixer.up.out.weight.zero_()
        mixer.feed_forward[2].down.weight.zero_()
    _, (states, _) = mixer(torch.randn(2, 12, 8, dtype=torch.float64))
    assert_close(states, mixer.states.expand(2, -1, -1))
