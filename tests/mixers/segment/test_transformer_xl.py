"""Transformer-XL against the authors' layer (tests/oracles/make_segment.py), full attention, and a loop over steps."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import Clock, state as states
from recurra.mixers.segment.transformer_xl import TransformerXL


@pytest.mark.parametrize("form, memory", [("xl", 5), ("xl_long", 7)])
def test_equals_the_authors_layer(form, memory):
    weights, stored = numbers("segment", f"{form}.")
    mixer = TransformerXL(8, segment=5, memory=memory, heads=2).double()
    query, key, value = weights["qkv_net.weight"].chunk(3)
    own = {
        "query": query,
        "key": key,
        "value": value,
        "out": weights["o_net.weight"],
        "distance": weights["r_net.weight"],
    }
    own = {f"{name}.weight": weight for name, weight in own.items()}
    mixer.load_state_dict(own | {"content_bias": stored["u"].flatten(), "distance_bias": stored["v"].flatten()})
    assert_close(mixer(stored["x"])[0], stored["y"], rtol=1e-12, atol=1e-12)


def copied(mixer, **config):
    """The same weights, another memory."""
    other = TransformerXL(**(mixer.config | config)).double()
    other.load_state_dict(mixer.state_dict())
    return other


def test_with_all_remembered_it_is_full_attention():
    mixer = TransformerXL(8, segment=4, memory=64).double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    assert_close(mixer(x)[0], copied(mixer, segment=30, memory=0)(x)[0], rtol=1e-12, atol=1e-12)


def test_a_step_sees_the_memory_and_its_own_segment():
    mixer = TransformerXL(8, segment=4, memory=6).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][0, 14].sum(), x)
    # step 14 is the third of the segment that begins at 12
    assert (grad[0].abs().sum(1) > 0).nonzero()[:, 0].tolist() == list(range(12 - 6, 15))


def test_a_state_that_is_detached_stops_gradients_into_memory_alone():
    mixer = TransformerXL(8, segment=4, memory=4).double()
    x = torch.randn(1, 8, 8, dtype=torch.float64, requires_grad=True)
    _, state = mixer(x[:, :4])
    y, _ = mixer(x[:, 4:], states.detach(state))
    gradient, key = torch.autograd.grad(y.sin().sum(), [x, mixer.key.weight])
    assert (gradient[:, :4] == 0).all() and (gradient[:, 4:] != 0).any()
    # the keys of what is remembered are made anew, as the authors do
    (own,) = torch.autograd.grad(copied(mixer, memory=0)(x[:, 4:])[0].sin().sum(), x)
    assert (key != 0).any() and not torch.allclose(own, gradient)


def compressing():
    return TransformerXL(8, segment=4, memory=8, compressed=3, rate=2, heads=1).double()


def test_what_leaves_the_memory_is_compressed():
    """A loop over steps, each with a list of what it sees."""
    mixer, x = compressing(), torch.randn(27, 8, dtype=torch.float64)
    rate = 10_000.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    near, far, y = [], [], []
    for segment in x.split(4):
        own = []
        for z in segment:
            own.append(z)
            seen = far + near + own
            angle = torch.arange(len(seen) - 1, -1, -1)[:, None] * rate
            waves = mixer.distance(torch.cat([angle.sin(), angle.cos()], 1))
            query, keys = mixer.query(z), mixer.key(torch.stack(seen))
            score = keys @ (query + mixer.content_bias) + waves @ (query + mixer.distance_bias)
            y.append(mixer.out((score / 8**0.5).softmax(0) @ mixer.value(torch.stack(seen))))
        near += own
        while len(near) > 8:
            far = [*far, mixer.compress(torch.cat(near[:2]))][-3:]
            near = near[2:]
    assert_close(mixer(x[None])[0][0], torch.stack(y), rtol=1e-10, atol=1e-12)


def test_compression_learns_and_forgets_nothing_at_once():
    mixer, x = compressing(), torch.randn(1, 24, 8, dtype=torch.float64, requires_grad=True)
    y, _ = mixer(x)
    grads = torch.autograd.grad(y[0, -1].sum(), [x, *mixer.parameters()])
    assert all((g != 0).any() for g in grads)
    # 4 steps of its own, 8 of memory, and 3 compressed of 2 steps each
    assert (grads[0][0].abs().sum(1) > 0).nonzero()[:, 0].tolist() == list(range(6, 24))


@pytest.mark.parametrize("config", [{"compressed": 3, "rate": 2, "memory": 8}, {"memory": 6}], ids=["compressed", "xl"])
@pytest.mark.parametrize("cuts", [range(1, 61), (0, 3, 17, 17, 42)], ids=["steps", "few"])
def test_a_cut_and_sequences_that_begin_anywhere_change_nothing(config, cuts):
    """Long enough for the memory to be full and what is compressed to leave, in some rows and not in others."""
    mixer, x = TransformerXL(8, segment=4, **config).double(), torch.randn(3, 61, 8, dtype=torch.float64)
    chance = torch.rand(2, 3, 61)
    clock = Clock(chance[0] < torch.tensor([[0.0], [0.03], [0.2]]), chance[1] < torch.tensor([[1.0], [0.9], [0.7]]))
    whole, last = mixer(x, None, clock)
    state, y = None, []
    for start, stop in zip((0, *cuts), (*cuts, 61), strict=True):
        part, state = mixer(x[:, start:stop], state, clock.cut(start, stop))
        y.append(part)
    assert_close(torch.cat(y, 1), whole, rtol=1e-10, atol=1e-12)
    assert_close(list(states.leaves(state)), list(states.leaves(last)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "config, said",
    [
        ({"memory": -1}, "memory is -1"),
        ({"segment": 4, "memory": 6, "compressed": 2}, "memory is 6: it must be a multiple of segment, which is 4"),
        ({"segment": 4, "memory": 8, "compressed": 2, "rate": 3}, "segment is 4: it must be a multiple of rate"),
    ],
)
def test_what_does_not_fit_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        TransformerXL(8, **config)
