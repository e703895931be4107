"""ARMT's memory against the authors' code (tests/oracles/make_segment.py), the delta rule, and a loop over steps."""

import pytest
import torch
from oracles.stored import numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.mixers.segment.armt import ARMT, products, recall
from recurra.mixers.window.attention import Attention
from recurra.ops.delta import Delta
from recurra.ops.delta.loop import scan


def remembered(mixer, memory, x):
    """What the memory has for each."""
    return recall(memory, products(mixer.memory_query(x)))


def test_equals_the_authors_memory():
    weights, stored = numbers("segment", "armt.")
    mixer, names = ARMT(8, segment=5, tokens=3, key_size=4, heads=2).double(), {"mq": "query", "mk": "key"}
    names |= {"mv": "value", "mb": "write"}
    own = {f"memory_{ours}.weight": weights[f"W_{theirs}.weight"] for theirs, ours in names.items()}
    mixer.load_state_dict(mixer.state_dict() | own | {"memory_write.bias": weights["W_mb.bias"]})
    memory, _ = mixer.initial_state(2)
    for x, y in zip(stored["x"].unbind(1), stored["y"].unbind(1), strict=True):
        assert_close(x + remembered(mixer, memory, x), y, rtol=1e-12, atol=1e-12)
        memory = mixer._associate(memory, y[:, -3:])
    assert_close(memory, torch.cat([stored["matrix"], stored["total"][..., None]], -1), rtol=1e-12, atol=1e-12)


def loud(mixer):
    """Keys so large that epsilon is lost beside them, and strengths of one."""
    with torch.no_grad():
        mixer.memory_key.weight.mul_(1e5)
        mixer.memory_value.weight.normal_()
        mixer.memory_write.bias.fill_(1e3)
    return mixer


def test_what_is_written_three_times_is_read_once():
    mixer = loud(ARMT(8, tokens=1).double())
    (memory, _), token = mixer.initial_state(2), torch.randn(2, 1, 8, dtype=torch.float64)
    with torch.no_grad():
        mixer.memory_query.weight.copy_(mixer.memory_key.weight)
    for _ in range(3):
        memory = mixer._associate(memory, token)
        assert_close(remembered(mixer, memory, token), mixer.memory_value(token))


def test_keys_apart_are_the_delta_rule():
    """Where keys do not touch, z is of length one for each, and what is rewritten moves a part of the way."""
    mixer = loud(ARMT(16, tokens=1, key_size=4).double())
    with torch.no_grad():
        # a token's first four features say its key, of which two neighbours each make a feature of their own
        mixer.memory_key.weight.copy_(1e5 * torch.eye(4, 16))
        mixer.memory_write.bias.zero_()
    which = torch.tensor([0, 1, 0, 0, 1, 2, 0, 2])
    pairs = torch.tensor([[1.0, 1, 0, 0], [-1, -1, 0, 0], [0, 0, 1, 1]]).double()
    tokens = torch.cat([pairs[which], torch.randn(8, 12, dtype=torch.float64)], 1)
    memory, _ = mixer.initial_state(1)
    reads = []
    for token in tokens:
        memory = mixer._associate(memory, token[None, None])
        key = products(mixer.memory_key(token))
        reads.append(recall(memory, key[None, None])[0, 0])
    unit = F.normalize(products(tokens[:, :4] @ torch.eye(4).double()), dim=-1)[None, :, None]
    strength = torch.sigmoid(mixer.memory_write(tokens))[None, :, None]
    record = Delta(unit, unit, strength * mixer.memory_value(tokens)[None, :, None], strength * unit)
    expected, _ = scan(record, torch.zeros(1, 1, 24, 16, dtype=torch.float64))
    assert_close(torch.stack(reads), expected[0, :, 0])


def test_autocast_leaves_the_memorys_sums_wide():
    memory, key = torch.randn(2, 24, 9), torch.rand(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = recall(memory, key)
    assert_close(narrow, recall(memory, key), rtol=0, atol=0)


def test_the_feature_map_is_products_of_a_vector_with_its_rolls():
    x = torch.tensor([2.0, -3.0])
    both = [2.0, 0.0, 0.0, 3.0]
    expected = [both[i] * both[i - shift] for shift in (1, 2, 3) for i in range(4)]
    assert products(x).tolist() == expected


def test_an_empty_memory_leaves_attention_within_segments():
    """W_v starts at zero, so nothing is ever read until it has been trained."""
    mixer, full = ARMT(8, segment=5).double(), Attention(8).double()
    full.load_state_dict({name: mixer.state_dict()[name] for name in full.state_dict()})
    x = torch.randn(2, 18, 8, dtype=torch.float64)
    apart = torch.cat([full(mixer.enter(part))[0] for part in x.split(5, 1)], 1)
    assert_close(mixer(x)[0], apart, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [10, 12])
def test_equals_a_loop_over_segments_and_steps(steps):
    mixer = ARMT(8, segment=5, tokens=2, heads=1).double()
    with torch.no_grad():
        mixer.memory_value.weight.normal_()
    x = torch.randn(steps, 8, dtype=torch.float64)
    turn = mixer.base ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)

    def turned(z, place):
        pairs = torch.view_as_complex(z.view(4, 2)) * torch.polar(torch.ones(4).double(), place * turn)
        return torch.view_as_real(pairs).flatten()

    def attend(query, seen):
        """Of one query to pairs of place and vector."""
        query = turned(mixer.query(query[1]), query[0])
        keys = torch.stack([turned(mixer.key(z), place) for place, z in seen])
        values = torch.stack([mixer.value(z) for _, z in seen])
        return mixer.out((keys @ query / 8**0.5).softmax(0) @ values)

    def recall(z):
        return remembered(mixer, memory, z[None, None])[0, 0]

    memory, _ = mixer.initial_state(1)
    y = []
    for segment in x.split(5):
        seen = []
        for place, z in enumerate(segment):
            recalled = recall(z)
            seen.append((place, mixer.enter(z + recalled)))
            y.append(recalled + attend(seen[-1], seen))
        if len(segment) == 5:
            tokens = [z + recall(z) for z in mixer.tokens]
            seen += [(0, mixer.enter(z)) for z in tokens]
            tokens = [z + attend((0, mixer.enter(z)), seen) for z in tokens]
            tokens = torch.stack([z + mixer.feed_forward(mixer.norm(z)) for z in tokens])
            memory = mixer._associate(memory, tokens[None])
    assert_close(mixer(x[None])[0][0], torch.stack(y), rtol=1e-10, atol=1e-12)
