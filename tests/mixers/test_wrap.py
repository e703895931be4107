"""Two directions: against torch's packed LSTM, and each sequence by itself; they refuse to stream."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from recurra import MIXERS, Clock
from recurra.mixers.wrap import WRAPPERS, Bidirectional, reverse

LENGTHS = [9, 1, 5]


def build(name, **more):
    mixers = MIXERS[name](8), MIXERS[name](8)
    wrapped = Bidirectional(*mixers, **more).double()
    with torch.no_grad():
        for p in wrapped.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return wrapped


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_equals_torchs_packed_lstm(merge):
    wrapped, theirs = build("lstm", merge=merge), nn.LSTM(8, 8, batch_first=True, bidirectional=True).double()
    weights = theirs.state_dict()
    for mixer, tail in ((wrapped.forwards, "l0"), (wrapped.backwards, "l0_reverse")):
        mixer.load_state_dict(
            {
                "cell.input_weight": weights[f"weight_ih_{tail}"],
                "cell.weight": weights[f"weight_hh_{tail}"].unflatten(0, (4, 1, 8)),
                "cell.bias": weights[f"bias_ih_{tail}"] + weights[f"bias_hh_{tail}"],
            }
        )
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    want, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    y, state = wrapped(x, None, Clock.lengths(LENGTHS))
    assert_close(y, want if merge == "concat" else sum(want.chunk(2, -1)))
    assert state == ()
    want = theirs(x)[0]
    assert_close(wrapped(x)[0], want if merge == "concat" else sum(want.chunk(2, -1)))


@pytest.mark.parametrize("name", MIXERS)
def test_every_sequence_is_read_from_its_own_end(name):
    wrapped = build(name)
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    reset, valid = torch.rand(2, 17) < 0.25, torch.rand(2, 17) < 0.7
    dt = 0.5 + torch.rand(2, 17, dtype=torch.float64) if wrapped.backwards.timed else None
    y, _ = wrapped(x, None, Clock(reset, valid, dt))
    assert (y[~valid] == 0).all()
    for row in range(2):
        own = valid[row].nonzero()[:, 0]
        cuts = reset[row, own].nonzero()[:, 0].tolist()
        for sequence in own.tensor_split(cuts):
            if not len(sequence):
                continue
            part, backwards = x[row : row + 1, sequence], x[row : row + 1, sequence.flip(0)]
            times = [None, None]
            if dt is not None:
                real = dt[row : row + 1, sequence]
                times = [Clock(dt=real), Clock(dt=torch.cat([real[:, :1], real[:, 1:].flip(1)], 1))]
            ahead = wrapped.forwards(part, None, times[0])[0]
            back = wrapped.backwards(backwards, None, times[1])[0].flip(1)
            assert_close(y[row, sequence], torch.cat([ahead, back], -1)[0])


def test_a_reversal_undone_is_the_identity():
    clock = Clock(torch.rand(4, 12) < 0.3, torch.rand(4, 12) < 0.6, torch.rand(4, 12) + 0.1)
    order, turned = reverse(clock, torch.zeros(4, 12, 1))
    assert (order.sort(1).values == torch.arange(12)).all()
    again, back = reverse(turned, torch.zeros(4, 12, 1))
    aligned, kept = clock.aligned()
    assert torch.equal(order.gather(1, again), kept)
    assert torch.equal(back.reset, aligned.reset) and torch.equal(back.valid, aligned.valid)
    assert torch.equal(back.dt, aligned.dt)


def test_nothing_happens_where_nothing_happened():
    wrapped = build("gru")
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    assert wrapped(x[:, :0])[0].shape == (2, 0, 16)
    y, _ = wrapped(x, None, Clock.lengths([0, 6]))
    assert (y[0] == 0).all()
    assert_close(y[1:], wrapped(x[1:])[0])
    # a plain clock is none
    assert_close(wrapped(x, None, Clock())[0], wrapped(x)[0])


def test_the_past_and_the_future_both_matter_and_both_have_gradients():
    wrapped = build("mingru")
    x = torch.randn(1, 9, 8, dtype=torch.float64, requires_grad=True)
    clock = Clock.packed([0, 6, 9])
    y, _ = wrapped(x, None, clock)
    grads = torch.autograd.grad(y[:, 3].sum(), [x, *wrapped.parameters()])
    assert (grads[0][:, :6] != 0).any(-1).all() and (grads[0][:, 6:] == 0).all()
    assert all((grad != 0).any() for grad in grads)


def test_it_refuses_to_stream():
    wrapped = build("lstm")
    x = torch.randn(2, 1, 8, dtype=torch.float64)
    _, state = wrapped(x)
    for given in (state, wrapped.forwards.initial_state(2)):
        with pytest.raises(ValueError, match="cannot go on from a state: its backward mixer reads from the end"):
            wrapped(x, given)
    with pytest.raises(ValueError, match="has no state"):
        wrapped.initial_state(2)


def test_what_cannot_be_built_or_run_is_refused():
    one = MIXERS["lstm"](8)
    with pytest.raises(ValueError, match="both directions are one mixer"):
        Bidirectional(one, one)
    with pytest.raises(ValueError, match="merge is 'mean': it must be one of concat, sum"):
        Bidirectional(one, MIXERS["lstm"](8), merge="mean")
    with pytest.raises(ValueError, match="no notion of time"):
        build("lstm")(torch.randn(2, 6, 8).double(), None, Clock(dt=torch.ones(2, 6)))


def test_wrappers_are_no_mixers():
    assert not set(WRAPPERS) & set(MIXERS)
