"""What a clock accepts and refuses, and how it is made, cut and put in order."""

import jaxtyping
import pytest
import torch
from hypothesis import given, settings, strategies as st

from recurra import Clock


def test_the_plain_clock_says_nothing():
    assert not Clock()
    assert Clock(reset=torch.zeros(1, 1, dtype=torch.bool))
    assert Clock(dt=torch.ones(1, 1))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"reset": torch.zeros(3, dtype=torch.bool)}, r"Clock.reset has shape \(3,\): it must be \(batch, time\)"),
        ({"valid": torch.ones(2, 3)}, r"Clock.valid has type torch.float32: it must be bool"),
        ({"reset": torch.ones(2, 3, dtype=torch.int64)}, r"Clock.reset has type torch.int64: it must be bool"),
        ({"dt": torch.ones(2, 3, dtype=torch.int64)}, r"Clock.dt has type torch.int64: it must be a float type"),
        ({"dt": torch.tensor([[1.0, 0.0]])}, "greater than 0"),
        ({"dt": torch.tensor([[1.0, -1.0]])}, "greater than 0"),
        ({"dt": torch.tensor([[1.0, torch.nan]])}, "greater than 0"),
        ({"dt": torch.ones(2, 3), "valid": torch.ones(2, 4, dtype=torch.bool)}, "must have one shape"),
    ],
)
def test_what_is_no_clock_is_refused(parts, message, monkeypatch):
    # what a user meets: the checks of annotations that tests run under come before the library's own words
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        Clock(**parts)


def test_lengths_are_rows_padded_on_the_right():
    clock = Clock.lengths([2, 0, 3])
    assert clock.valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert clock.counts.tolist() == [2, 0, 3]
    assert Clock.lengths(torch.tensor([1]), 4).valid.tolist() == [[True, False, False, False]]
    for wrong in ([-1, 2], [2, 5]):
        with pytest.raises(ValueError, match="between 0 and 4"):
            Clock.lengths(wrong, 4)


def test_packed_sequences_begin_where_the_ones_before_end():
    assert Clock.packed([0, 2, 2, 3]).reset.tolist() == [[True, False, True]]
    assert Clock.packed(torch.tensor([0, 4])).reset.tolist() == [[True, False, False, False]]
    assert Clock.packed([0]).reset.shape == (1, 0)
    for wrong in ([1, 2], [0, 3, 2], []):
        with pytest.raises(ValueError, match="must begin with 0 and never fall"):
            Clock.packed(wrong)


def _clock(T=7, B=3):
    return Clock(torch.rand(B, T) < 0.4, torch.rand(B, T) < 0.6, 0.5 + torch.rand(B, T))


@given(cut=st.integers(0, 7))
def test_a_cut_clock_is_the_clock_of_the_pieces(cut):
    clock = _clock()
    first, second = clock.cut(0, cut), clock.cut(cut)
    for name in ("reset", "valid", "dt"):
        whole = getattr(clock, name)
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)], 1), whole)
    assert not Clock().cut(0, 3)


def test_rows_of_a_clock():
    clock = _clock()
    for index in ([2, 0], slice(1, None), torch.tensor([1])):
        for name in ("reset", "valid", "dt"):
            assert torch.equal(getattr(clock.rows(index), name), getattr(clock, name)[index])


@settings(deadline=None)
@given(seed=st.integers(0, 999), T=st.integers(0, 9))
def test_aligned_moves_what_did_not_happen_to_the_end(seed, T):
    torch.manual_seed(seed)
    clock = _clock(T)
    aligned, order = clock.aligned()
    x = torch.randn(3, T)
    moved = x.gather(1, order)
    assert torch.equal(torch.empty(3, T).scatter(1, order, moved), x)
    assert torch.equal(aligned.counts, clock.counts)
    for row in range(3):
        happened, count = clock.valid[row], int(clock.counts[row])
        assert aligned.valid[row].tolist() == [True] * count + [False] * (T - count)
        for got, want in ((moved, x), (aligned.dt, clock.dt), (aligned.reset, clock.reset)):
            assert torch.equal(got[row, :count], want[row, happened])
        # a step that did not happen begins nothing
        assert not aligned.reset[row, count:].any()


def test_aligned_keeps_what_is_not_there():
    aligned, _ = Clock(valid=torch.tensor([[False, True]])).aligned()
    assert aligned.reset is None and aligned.dt is None and aligned.valid.tolist() == [[True, False]]


def test_dt_is_not_asked_of_steps_that_did_not_happen():
    clock = Clock(valid=torch.tensor([[False, True]]), dt=torch.tensor([[0.0, 2.0]]))
    moved, _ = clock.aligned()
    assert moved.dt.tolist() == [[2.0, 1.0]]
