"""Both attentions against a loop over pairs, against transformers, and at what only a kept past can get wrong."""

import math
import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from recurra import Clock, state as states
from recurra.mixers.window.attention import Attention
from recurra.mixers.window.sliding_window import SlidingWindow

NUMBERS = load_file(pathlib.Path(__file__).parents[2] / "oracles" / "attention.safetensors")
MIXERS = {
    "full": lambda: Attention(16, heads=2).double(),
    "window 1": lambda: SlidingWindow(16, heads=2, window=1).double(),
    "window 2": lambda: SlidingWindow(16, heads=2, window=2).double(),
    "window 5": lambda: SlidingWindow(16, heads=2, window=5).double(),
    "window 64": lambda: SlidingWindow(16, heads=2, window=64).double(),
}
each_mixer = pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)


def pairs(mixer, x, clock):
    """The definition, one pair of steps at a time, with complex numbers for rotations."""
    window = getattr(mixer, "window", math.inf)
    size = x.shape[-1] // mixer.heads
    y = torch.zeros_like(x)
    frequency = mixer.base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    for row in range(len(x)):
        past = []
        for t in range(x.shape[1]):
            if clock.valid is not None and not clock.valid[row, t]:
                continue
            if clock.reset is not None and clock.reset[row, t]:
                past = []
            turn = torch.polar(torch.ones_like(frequency), len(past) * frequency)
            query, key, value = (p(x[row, t]).view(mixer.heads, size) for p in (mixer.query, mixer.key, mixer.value))
            query, key = (torch.view_as_complex(v.view(mixer.heads, -1, 2)) * turn for v in (query, key))
            past.append((key, value))
            near = past[max(0, len(past) - window) :] if window < math.inf else past
            scores = torch.stack([(query * k.conj()).real.sum(-1) for k, _ in near]) / math.sqrt(size)
            read = (scores.softmax(0)[..., None] * torch.stack([v for _, v in near])).sum(0)
            y[row, t] = mixer.out(read.flatten())
    return y


def ragged():
    """Resets and gaps, more of them in each row."""
    chance = torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0))
    return Clock(chance[0] < 0.07, chance[1] < torch.tensor([[0.9], [0.5], [0.2]]))


@each_mixer
@pytest.mark.parametrize("clock", [Clock(), ragged()], ids=["plain", "ragged"])
def test_equals_the_sum_over_pairs(make, clock):
    mixer, x = make(), torch.randn(3, 40, 16, dtype=torch.float64)
    assert_close(mixer(x, None, clock)[0], pairs(mixer, x, clock), rtol=1e-10, atol=1e-12)


@each_mixer
@pytest.mark.parametrize("cuts", [range(1, 40), (1, 2, 7, 30), (0, 5, 5, 39)], ids=["steps", "few", "empty"])
@pytest.mark.parametrize("clock", [Clock(), ragged()], ids=["plain", "ragged"])
def test_a_cut_changes_nothing(make, cuts, clock):
    mixer, x = make(), torch.randn(3, 40, 16, dtype=torch.float64)
    whole, last = mixer(x, None, clock)
    state, reads = None, []
    for start, stop in zip((0, *cuts), (*cuts, 40), strict=True):
        y, state = mixer(x[:, start:stop], state, clock.cut(start, stop))
        reads.append(y)
    assert_close(torch.cat(reads, 1), whole)
    assert_close(list(states.leaves(state)), list(states.leaves(last)))


@each_mixer
def test_gradients_of_pieces_equal_gradients_of_the_whole(make):
    mixer, x, clock = make(), torch.randn(3, 40, 16, dtype=torch.float64, requires_grad=True), ragged()
    weight = torch.randn(3, 40, 16, dtype=torch.float64)
    wanted = [x, *mixer.parameters()]
    whole = torch.autograd.grad((mixer(x, None, clock)[0] * weight).sum(), wanted)
    first, state = mixer(x[:, :13], None, clock.cut(0, 13))
    second, _ = mixer(x[:, 13:], state, clock.cut(13))
    pieces = torch.autograd.grad((torch.cat([first, second], 1) * weight).sum(), wanted)
    assert_close(pieces, whole)


@each_mixer
def test_a_reset_leaves_the_state_of_a_fresh_start(make):
    mixer, x = make(), torch.randn(2, 30, 16, dtype=torch.float64)
    reset = torch.zeros(2, 30, dtype=torch.bool)
    reset[:, 21] = True
    _, state = mixer(x, None, Clock(reset))
    assert_close(list(states.leaves(state)), list(states.leaves(mixer(x[:, 21:])[1])))


@each_mixer
def test_rows_of_different_lengths_go_on_together(make):
    mixer, x = make(), torch.randn(2, 30, 16, dtype=torch.float64)
    _, state = mixer(x[:, :20], None, Clock.lengths([6, 20]))
    together, _ = mixer(x[:, 20:], state)
    alone, _ = mixer(torch.cat([x[:1, :6], x[:1, 20:]], 1))
    assert_close(together[:1], alone[:, 6:])
    assert_close(together[1:], mixer(x[1:])[0][:, 20:])
    # a short row by itself still has the room of the long one: it must make no difference
    row, _ = mixer(x[:1, 20:], states.rows(state, [0]))
    assert_close(row, alone[:, 6:])


def by_neighbours(weight, heads):
    """Their rotation turns features i and i + K/2 together, ours 2i and 2i + 1."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


@pytest.mark.parametrize("form", ["full", "window"])
def test_equals_transformers(form):
    numbers = {name.removeprefix(f"{form}."): v for name, v in NUMBERS.items() if name.startswith(form)}
    mixer = Attention(16, heads=2) if form == "full" else SlidingWindow(16, heads=2, window=4)
    weights = {p: numbers[f"weight.{p[0]}_proj.weight"] for p in ("query", "key", "value", "out")}
    weights |= {p: by_neighbours(weights[p], 2) for p in ("query", "key")}
    mixer.double().load_state_dict({f"{name}.weight": value for name, value in weights.items()})
    assert_close(mixer(numbers["x"])[0], numbers["y"], rtol=1e-12, atol=1e-12)


def test_a_token_sees_itself_and_the_ones_before_it_up_to_the_window():
    mixer, x = MIXERS["window 5"](), torch.randn(1, 20, 16, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][0, 12].sum(), x)
    assert (grad[0].abs().sum(1) > 0).nonzero()[:, 0].tolist() == [8, 9, 10, 11, 12]


class Largest(TorchDispatchMode):
    """The most elements in any tensor that was computed."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.most = max(self.most, x.numel())
        return out


def test_a_long_sequence_is_never_squared():
    mixer, T, W = SlidingWindow(16, window=16), 8192, 16
    with Largest() as seen, torch.no_grad():
        mixer(torch.randn(1, T, 16))
    assert seen.most <= 4 * T * W < T * T // 16


def test_a_window_keeps_its_bytes_and_full_attention_grows_by_the_token():
    window, full = SlidingWindow(16, window=8), Attention(16)
    sizes = []
    for mixer in (window, full):
        _, early = mixer(torch.randn(1, 3, 16))
        _, late = mixer(torch.randn(1, 100, 16), early)
        sizes.append((states.nbytes(early), states.nbytes(late)))
    assert sizes[0][0] == sizes[0][1] == states.nbytes(window.initial_state(1))
    assert sizes[1][1] - sizes[1][0] == 100 * 2 * 16 * 4
    assert full.grows and not window.grows


def test_step_ten_million_is_as_exact_as_step_ten():
    mixer, x = SlidingWindow(16, window=8), torch.randn(1, 30, 16)
    keys, values, count = mixer.initial_state(1)
    early, _ = mixer(x)
    late, (*_, after) = mixer(x, (keys, values, count + 10_000_000))
    # after a window's worth of steps only the distances are left, and they are the same
    assert_close(late[:, 8:], early[:, 8:], rtol=1e-5, atol=1e-5)
    assert after.tolist() == [10_000_030]


@pytest.mark.parametrize("make", [Attention, SlidingWindow])
def test_uneven_heads_are_refused(make):
    with pytest.raises(ValueError, match="width is 16: it must be a multiple of twice heads, which is 6"):
        make(16, heads=3)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window is 0"):
        SlidingWindow(16, window=0)
