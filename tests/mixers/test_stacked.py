"""The law for wrappers that have a state: cells held to a few states, layers that hear the layer above, residuals."""

import pytest
import torch
from torch.testing import assert_close

from recurra import MIXERS, Clock, state as states
from recurra.mixers.wrap import Residual, StateRegularised, TopDown

B, T, D = 2, 13, 8


def regularised():
    return StateRegularised(MIXERS["lstm"](D), states=4, temperature=0.3)


def top_down():
    return TopDown(MIXERS["gru"](D), MIXERS["gla"](D), MIXERS["horn"](D))


def residual():
    return Residual(MIXERS["gru"](D), MIXERS["gla"](D))


def build(make):
    wrapped = make().double()
    with torch.no_grad():
        for p in wrapped.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return wrapped


each = pytest.mark.parametrize("make", [regularised, top_down, residual])


def same(one, other):
    assert_close(list(states.leaves(one)), list(states.leaves(other)))


@each
@pytest.mark.parametrize("cuts", [[4], [1, 1, 6], list(range(1, T))])
def test_a_cut_changes_nothing(make, cuts):
    wrapped = build(make)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    clock = Clock(torch.rand(B, T) < 0.2, torch.rand(B, T) < 0.7)
    whole, last = wrapped(x, None, clock)
    state, pieces = None, []
    for start, stop in zip([0, *cuts], [*cuts, T], strict=True):
        y, state = wrapped(x[:, start:stop], state, clock.cut(start, stop))
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    same(state, last)
    wanted = [x, *wrapped.parameters()]
    grads = (torch.autograd.grad(y.sin().sum(), wanted) for y in (whole, torch.cat(pieces, 1)))
    for one, other in zip(*grads, strict=True):
        assert (one != 0).any()
        assert_close(other, one)


@each
def test_gaps_and_resets_are_as_if_sequences_were_apart(make):
    wrapped = build(make)
    x, valid = torch.randn(B, T, D, dtype=torch.float64), torch.rand(B, T) < 0.6
    reset = torch.rand(B, T) < 0.2
    y, last = wrapped(x, None, Clock(reset, valid))
    assert (y[~valid] == 0).all()
    for row in range(B):
        own = valid[row].nonzero()[:, 0]
        for sequence in own.tensor_split(reset[row, own].nonzero()[:, 0].tolist()):
            alone, end = wrapped(x[row : row + 1, sequence])
            assert_close(y[row, sequence], alone[0])
        same(states.rows(last, [row]), end)


def test_a_cold_cell_is_in_one_of_its_states():
    wrapped = StateRegularised(MIXERS["elman"](D), states=5, temperature=1e-4).double()
    y, (h,) = wrapped(torch.randn(B, T, D, dtype=torch.float64))
    away = (y[:, :, None] - wrapped.states).abs().amax(-1).amin(-1)
    assert away.max() < 1e-6
    assert_close(h, y[:, -1])


def test_without_feedback_it_is_a_plain_stack():
    lower, upper = MIXERS["gru"](D).double(), MIXERS["lstm"](D).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    assert_close(TopDown(lower, upper)(x)[0], upper(lower(x)[0])[0])


def test_feedback_is_one_step_late():
    wrapped = build(top_down)
    x = torch.randn(1, 5, D, dtype=torch.float64)
    y, (_, above) = wrapped(x[:, :4])
    lower, upper, highest = wrapped.mixers
    _, ((first, second, third), _) = wrapped(x[:, :4])
    bottom, _ = lower(x[:, 4:] + above[0][:, None] @ wrapped.feedback[0].T, first)
    middle, _ = upper(bottom + above[1][:, None] @ wrapped.feedback[1].T, second)
    assert_close(wrapped(x)[0][:, 4:], highest(middle, third)[0])
    assert_close(above[1], y[:, -1])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="the output of HORN is not the first of its states"):
        StateRegularised(MIXERS["horn"](D))
    for wrong, reason in (({"states": 1}, "states is 1"), ({"temperature": 0.0}, "temperature is 0")):
        with pytest.raises(ValueError, match=reason):
            StateRegularised(MIXERS["gru"](D), **wrong)
    for mixers in ([MIXERS["gru"](D)], [MIXERS["gru"](D), MIXERS["gru"](16)]):
        with pytest.raises(ValueError, match="the widths are"):
            TopDown(*mixers)


def test_a_residual_adds_to_what_it_reads():
    wrapped, x = build(residual), torch.randn(B, T, D, dtype=torch.float64)
    lower, upper = wrapped.layers
    first = x + lower(x)[0]
    assert_close(wrapped(x)[0], first + upper(first)[0], rtol=0, atol=0)
    with pytest.raises(ValueError, match="give at least one mixer"):
        Residual()
