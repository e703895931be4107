"""What every architecture promises, asked of every row of the table."""

import functools
import inspect

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from recurra import MIXERS, Clock, state as states
from recurra.mixers import Mixer

WIDTH = 16
each_mixer = pytest.mark.parametrize("name", MIXERS)


def build(name: str, dtype=torch.float64) -> Mixer:
    """The mixer, in float64, with every parameter moved off its initial value so that nothing is hidden by a zero."""
    torch.manual_seed(0)
    mixer = MIXERS[name](WIDTH).to(dtype)
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return mixer


# hypothesis calls a test many times
_same_again = functools.lru_cache(1)(build)


def close(one, other, **kw):
    assert_close(list(states.leaves(one)), list(states.leaves(other)), **kw)


def run(mixer, x, clock, *cuts):
    """Outputs and final state over the pieces between cuts."""
    state, outputs, start = None, [], 0
    for stop in (*cuts, x.shape[1]):
        y, state = mixer(x[:, start:stop], state, None if clock is None else clock.cut(start, stop))
        outputs.append(y)
        start = stop
    return torch.cat(outputs, 1), state


def timed(mixer, clock, T, B=2):
    """The clock, with irregular time where the mixer has a notion of it."""
    if not mixer.timed:
        return clock
    dt = 0.5 + torch.rand(B, T, dtype=torch.float64)
    return Clock(*((None, None) if clock is None else (clock.reset, clock.valid)), dt)


@each_mixer
@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 37), max_size=4).map(sorted),
    resets=st.booleans(),
    gaps=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_cut_changes_nothing(name, cuts, resets, gaps, seed):
    mixer = _same_again(name)
    torch.manual_seed(seed)
    x = torch.randn(2, 37, WIDTH, dtype=torch.float64)
    clock = Clock(torch.rand(2, 37) < 0.15 if resets else None, torch.rand(2, 37) < 0.8 if gaps else None)
    clock = timed(mixer, clock, 37)
    whole, last = run(mixer, x, clock)
    pieces, end = run(mixer, x, clock, *cuts)
    assert_close(pieces, whole)
    close(end, last)


@each_mixer
def test_single_steps_equal_the_whole(name):
    mixer = build(name)
    x = torch.randn(2, 19, WIDTH, dtype=torch.float64)
    clock = timed(mixer, None, 19)
    whole, last = run(mixer, x, clock)
    pieces, end = run(mixer, x, clock, *range(1, 19))
    assert_close(pieces, whole)
    close(end, last)


@each_mixer
def test_no_steps_change_nothing(name):
    mixer = build(name)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    _, state = mixer(x)
    y, after = mixer(x[:, :0], state)
    assert y.shape == (2, 0, WIDTH)
    close(after, state, rtol=0, atol=0)


@each_mixer
def test_the_future_does_not_leak(name):
    mixer = build(name)
    x = torch.randn(1, 9, WIDTH, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][:, 4].sum(), x)
    assert (grad[:, 5:] == 0).all() and (grad[:, :5] != 0).any()


@each_mixer
@pytest.mark.parametrize("at", [1, 16, 20])
def test_a_reset_is_a_fresh_start(name, at):
    mixer = build(name)
    x = torch.randn(2, 37, WIDTH, dtype=torch.float64)
    reset = torch.zeros(2, 37, dtype=torch.bool)
    reset[:, at] = True
    both, last = mixer(x, None, Clock(reset))
    fresh, end = mixer(x[:, at:])
    assert_close(both[:, at:], fresh)
    assert_close(both[:, :at], mixer(x[:, :at])[0])
    if not mixer.grows:
        close(last, end)
    twice = reset.clone()
    twice[:, at + 1] = True
    assert_close(mixer(x, None, Clock(twice))[0][:, at + 1 :], mixer(x[:, at + 1 :])[0])


@each_mixer
def test_packed_sequences_are_separate_sequences(name):
    mixer = build(name)
    a, b, c = (torch.randn(1, n, WIDTH, dtype=torch.float64) for n in (7, 1, 20))
    packed, _ = mixer(torch.cat([a, b, c], 1), None, Clock.packed([0, 7, 8, 28]))
    assert_close(packed, torch.cat([mixer(s)[0] for s in (a, b, c)], 1))


@each_mixer
def test_steps_that_did_not_happen_change_nothing(name):
    mixer = build(name)
    x = torch.randn(2, 30, WIDTH, dtype=torch.float64)
    valid = torch.rand(2, 30) < 0.6
    reset = torch.rand(2, 30) < 0.1
    clock = timed(mixer, Clock(reset, valid), 30)
    y, state = mixer(x, None, clock)
    assert (y[~valid] == 0).all()
    for row in range(2):
        happened = valid[row]
        own = Clock(
            reset[row : row + 1, happened], None, None if clock.dt is None else clock.dt[row : row + 1, happened]
        )
        alone, end = mixer(x[row : row + 1, happened], None, own)
        assert_close(y[row, happened], alone[0])
        if not mixer.grows:
            close(states.rows(state, [row]), end)


@each_mixer
def test_a_row_of_no_steps_keeps_its_state(name):
    mixer = build(name)
    x = torch.randn(2, 8, WIDTH, dtype=torch.float64)
    _, before = mixer(x)
    _, after = mixer(x, before, Clock.lengths([0, 8]))
    if not mixer.grows:
        close(states.rows(after, [0]), states.rows(before, [0]), rtol=0, atol=0)


@each_mixer
def test_rows_do_not_touch(name):
    mixer = build(name)
    x = torch.randn(3, 21, WIDTH, dtype=torch.float64)
    together, state = mixer(x)
    alone, end = mixer(x[1:2])
    assert_close(together[1:2], alone)
    close(states.rows(state, [1]), end)


@each_mixer
def test_a_batch_of_no_rows_is_a_batch(name):
    mixer = build(name)
    _, state = mixer(torch.randn(2, 7, WIDTH, dtype=torch.float64))
    x = torch.randn(0, 7, WIDTH, dtype=torch.float64, requires_grad=True)
    y, nobody = mixer(x, None, timed(mixer, Clock(torch.zeros(0, 7).bool(), torch.ones(0, 7).bool()), 7, 0))
    assert y.shape == x.shape and y.dtype == x.dtype
    close(nobody, states.rows(state, slice(0)))
    grads = torch.autograd.grad(y.sum(), [x, *mixer.parameters()], allow_unused=True)
    assert grads[0] is not None and all(g is None or (g == 0).all() for g in grads)
    with torch.no_grad():
        assert mixer(x[:, :1], nobody)[0].shape == (0, 1, WIDTH)


@each_mixer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_keeps_its_size_and_type(name, dtype):
    mixer = build(name, dtype)
    start = mixer.initial_state(2)
    y, state = mixer(torch.randn(2, 40, WIDTH, dtype=dtype))
    assert y.dtype == dtype and torch.isfinite(y).all()
    for before, after in zip(states.leaves(start), states.leaves(state), strict=True):
        assert before.dtype == after.dtype and before.dtype not in (torch.bfloat16, torch.float16)
        assert len(before) == len(after) == 2
        assert mixer.grows or before.shape == after.shape
    _, later = mixer(torch.randn(2, 400, WIDTH, dtype=dtype), state)
    assert mixer.grows or states.nbytes(later) == states.nbytes(start)


@each_mixer
def test_the_state_given_is_not_touched(name):
    mixer = build(name)
    _, state = mixer(torch.randn(2, 5, WIDTH, dtype=torch.float64))
    copy = states.each(torch.clone, state)
    mixer(torch.randn(2, 5, WIDTH, dtype=torch.float64), state)
    with torch.no_grad():
        mixer(torch.randn(2, 1, WIDTH, dtype=torch.float64), state)
    close(state, copy, rtol=0, atol=0)


@each_mixer
def test_gradients_of_pieces_equal_gradients_of_the_whole(name):
    mixer = build(name)
    x = torch.randn(2, 33, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 33, WIDTH, dtype=torch.float64)
    wanted = [x, *mixer.parameters()]
    reset = torch.zeros(2, 33, dtype=torch.bool)
    reset[:, 20] = True
    clock = Clock(reset)
    whole = torch.autograd.grad((run(mixer, x, clock)[0] * weight).sum(), wanted, allow_unused=True)
    pieces = torch.autograd.grad((run(mixer, x, clock, 1, 2, 17)[0] * weight).sum(), wanted, allow_unused=True)
    names = ["x", *(n for n, _ in mixer.named_parameters())]
    for label, g, h in zip(names, whole, pieces, strict=True):
        assert g is not None and (g != 0).any(), f"{label} has no influence on the output"
        assert_close(h, g, rtol=1e-6, atol=1e-9, msg=lambda m, label=label: f"{label}: {m}")


@each_mixer
@pytest.mark.usefixtures("unchecked")
def test_long_gradients_are_finite(name):
    mixer = build(name, torch.float32)
    x = torch.randn(1, 2048, WIDTH, requires_grad=True)
    y, _ = mixer(x)
    assert torch.isfinite(y).all()
    grads = torch.autograd.grad(y.square().mean(), [x, *mixer.parameters()])
    assert all(torch.isfinite(g).all() for g in grads)


@each_mixer
def test_the_state_crosses_a_file(name, tmp_path):
    mixer = build(name)
    x = torch.randn(2, 12, WIDTH, dtype=torch.float64)
    _, state = mixer(x[:, :7])
    states.save(tmp_path / "s", state, mixer, 7)
    back, steps = states.load(tmp_path / "s", mixer)
    assert steps == 7
    close(back, state, rtol=0, atol=0)
    other = MIXERS["gla"](32) if name != "gla" else MIXERS["lstm"](32)
    with pytest.raises(ValueError, match=r"holds the state of .* use the model that wrote it"):
        states.load(tmp_path / "s", other)


@each_mixer
def test_rows_join_scatter_and_fork(name):
    mixer = build(name)
    x = torch.randn(3, 12, WIDTH, dtype=torch.float64)
    _, state = mixer(x)
    y, _ = mixer(x, state)
    split = [states.rows(state, [i]) for i in range(3)]
    assert_close(mixer(x, states.join(split))[0], y)
    assert_close(mixer(x[[2, 0]], states.rows(state, [2, 0]))[0], y[[2, 0]])
    assert_close(mixer(x[[1, 1]], states.fork(states.rows(state, [1]), 2))[0], y[[1, 1]])
    assert_close(mixer(x, states.scatter(mixer.initial_state(3) if not mixer.grows else state, [0, 1, 2], state))[0], y)


@each_mixer
def test_dt_is_honoured_or_refused_by_name(name):
    mixer = build(name)
    x = torch.randn(2, 6, WIDTH, dtype=torch.float64)
    dt = 0.5 + torch.rand(2, 6, dtype=torch.float64)
    if mixer.timed:
        assert not torch.allclose(mixer(x, None, Clock(dt=dt))[0], mixer(x)[0])
    else:
        with pytest.raises(ValueError, match=type(mixer).__name__):
            mixer(x, None, Clock(dt=dt))


@each_mixer
def test_configuration_and_weights_round_trip(name):
    mixer = build(name)
    copy = MIXERS[name](**mixer.config).double()
    copy.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    assert_close(copy(x)[0], mixer(x)[0], rtol=0, atol=0)
    with pytest.raises(TypeError):
        MIXERS[name](WIDTH, no_such_keyword=1)


@each_mixer
def test_the_docstring_has_an_equation_and_a_source(name):
    cls = MIXERS[name]
    doc = inspect.getdoc(cls) or ""
    assert ".. math::" in doc or ":math:" in doc, "no equation"
    assert "http" in doc, "no source"
    assert "State:" in doc, "no state"
    parameters = list(inspect.signature(cls).parameters.values())
    assert parameters[0].name == "width" and all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    for parameter in parameters:
        assert f"{parameter.name}:" in doc, f"the argument {parameter.name} is not described"
