"""The token shift against the sentence that defines it."""

import torch
from torch.testing import assert_close

from recurra.clock import Clock
from recurra.ops.shift import shift


def by_steps(x, past, clock):
    previous, past = torch.zeros_like(x), past.clone()
    for row in range(len(x)):
        for t in range(x.shape[1]):
            if clock.valid is not None and not clock.valid[row, t]:
                continue
            begins = clock.reset is not None and clock.reset[row, t]
            previous[row, t] = 0 if begins else past[row]
            past[row] = x[row, t]
    return previous, past


def test_equals_its_definition():
    x, past = torch.randn(4, 9, 3), torch.randn(4, 3)
    valid = torch.arange(9) < torch.tensor([[9], [5], [1], [0]])
    reset = (torch.rand(4, 9) < 0.3) & valid
    for clock in (None, Clock(reset), Clock(None, valid), Clock(reset, valid)):
        previous, last = shift(x, past, clock)
        want, want_last = by_steps(x, past, clock or Clock())
        happened = torch.ones(4, 9, dtype=torch.bool) if clock is None or clock.valid is None else valid
        assert_close(previous[happened], want[happened], rtol=0, atol=0)
        assert_close(last, want_last, rtol=0, atol=0)


def test_the_past_keeps_its_precision_where_nothing_happens():
    past = torch.randn(1, 3)
    _, last = shift(torch.randn(1, 2, 3).bfloat16(), past, Clock.lengths([0], 2))
    assert_close(last, past, rtol=0, atol=0)


def test_a_reset_forgets_even_nan():
    reset = torch.tensor([[True, False]])
    previous, _ = shift(torch.randn(1, 2, 3), torch.full((1, 3), torch.nan), Clock(reset))
    assert (previous[:, 0] == 0).all()
