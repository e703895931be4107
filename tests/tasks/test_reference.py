"""The counting models against the same formula written with dictionaries, one byte at a time."""

import collections
import lzma
import math

import numpy as np
import pytest

from recurra.tasks.reference import lines


def probability(train, order, history, byte):
    """Witten and Bell's formula, as it stands."""
    if order < 0:
        return 1 / 256
    history = history[len(history) - order :]
    after = collections.Counter(train[i + order] for i in range(len(train) - order) if train[i : i + order] == history)
    lower = probability(train, order - 1, history[1:], byte)
    if not after:
        return lower
    return (after[byte] + len(after) * lower) / (sum(after.values()) + len(after))


def slow(train, test, order):
    bits = [-math.log2(probability(train, min(order, i), test[:i], test[i])) for i in range(len(test))]
    return sum(bits) / len(bits)


TEXT = b"a cut changes nothing: a state is data, a step is one call, and a cut changes nothing at all. \xff\x00\xff"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (TEXT, b"a step changes a state, and nothing else."),
        (TEXT, b"\xff\x00\xff\x00 never seen: QXZ"),
        (TEXT, b"ab"),
        (b"ab", TEXT),
        (np.random.default_rng(0).integers(0, 3, 200, dtype=np.uint8).tobytes(), b"\0\1\2\0\1\2" * 6),
    ],
)
def test_lines_are_the_formula(train, test):
    got = lines(train, test)
    assert list(got) == ["order-0", "order-1", "order-2", "order-3", "xz"]
    for order in range(4):
        assert got[f"order-{order}"] == pytest.approx(slow(train, test, order), rel=1e-12)


def test_probabilities_sum_to_one():
    for test in (b"a cut", b"zzzz", b"\xff\x00\xff"):
        every = sum(2 ** -(slow(TEXT, test + bytes([c]), 3) * (len(test) + 1)) for c in range(256))
        assert every == pytest.approx(2 ** -(slow(TEXT, test, 3) * len(test)))


def test_nothing_learned_is_eight_bits():
    got = lines(b"", TEXT)
    assert all(got[f"order-{order}"] == 8 for order in range(4))


def test_xz_is_what_the_test_adds():
    noise = np.random.default_rng(0).integers(0, 256, 20000, dtype=np.uint8).tobytes()
    assert lines(noise, noise[5000:15000])["xz"] < 0.3
    assert lines(TEXT, noise)["xz"] == pytest.approx(8, abs=0.1)
    # alone, a container's header apart, it is what the program xz writes
    text = TEXT * 50 + noise
    assert lines(b"", text)["xz"] * len(text) / 8 == pytest.approx(len(lzma.compress(text)), abs=80)


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="no test bytes"):
        lines(TEXT, b"")
