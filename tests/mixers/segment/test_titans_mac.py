"""Titans' arrangements against a loop over steps, with autograd for the memory and complex numbers for rotations.

As gate and as layer also against titans-pytorch's two pieces put together (tests/oracles/make_titans_arrangements.py).
And at their limits: without a say of the memory they are attention, as torch's and as `sliding_window`'s; with a window
of one step and no persistent tokens the memory as a layer is `titans` and two linear maps.
"""

import math

import pytest
import torch
from oracles.stored import numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.clock import Clock
from recurra.mixers.descent.titans import Titans
from recurra.mixers.segment.titans_mac import TitansMAC
from recurra.mixers.segment.titans_mag import TitansMAG
from recurra.mixers.segment.titans_mal import TitansMAL
from recurra.mixers.window.sliding_window import SlidingWindow
from recurra.ops import native, use
from recurra.state import leaves

D, T = 8, 11
BUILDS = {
    "mac": lambda: TitansMAC(D, segment=4, tokens=3, heads=2, rate=0.5),
    "mac of one step": lambda: TitansMAC(D, segment=1, tokens=0, heads=2, rate=0.5),
    "mac of one segment": lambda: TitansMAC(D, segment=T, tokens=1, heads=2, rate=0.5, depth=3, expand=2),
    "mag": lambda: TitansMAG(D, window=3, chunk=4, tokens=3, heads=2, rate=0.5),
    "mag without tokens": lambda: TitansMAG(D, window=16, chunk=1, tokens=0, heads=2, rate=0.5),
    "mal": lambda: TitansMAL(D, window=3, chunk=4, tokens=3, heads=2, rate=0.5),
}


def build(make):
    mixer = make().double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return mixer


class Memory:
    """Titans' memory of one row, whose gradients torch finds."""

    def __init__(self, learner):
        self.learner, self.steps = learner, 0
        self.start = self.now = learner.net.layers(learner.initial.detach())
        self.momentum = [torch.zeros_like(weight) for weight in self.now]
        self.past = torch.zeros(learner.conv.weight.shape[1] - 1, learner.conv.weight.shape[0], dtype=torch.float64)

    @staticmethod
    def ask(weights, x):
        for number, weight in enumerate(weights):
            x = torch.einsum("hi,hio->ho", x if number == 0 else F.gelu(x), weight)
        return x

    def learn(self, x):
        """What is answered to `x` once it is learned."""
        own = self.learner
        seen = torch.cat([self.past, own.project(x)[None]])
        self.past = seen[1:]
        query, key, value = F.silu((seen * own.conv.weight.T).sum(0)).view(3, own.heads, -1)
        query, key = unit(query), unit(key)
        rate, forget, momentum = own.gates(x).sigmoid().view(3, own.heads, 1, 1)
        start = [weight.detach().requires_grad_() for weight in self.start]
        with torch.enable_grad():
            loss = (self.ask(start, key.detach()) - value.detach()).square().sum() / 2
        slopes = torch.autograd.grad(loss, start)
        self.momentum = [
            momentum * old - own.rate * rate * slope for old, slope in zip(self.momentum, slopes, strict=True)
        ]
        self.now = [(1 - forget) * old + moved for old, moved in zip(self.now, self.momentum, strict=True)]
        self.steps += 1
        read = rms(self.ask(self.now, query)) * own.norm.weight
        if self.steps % own.chunk == 0:
            self.start = self.now
        return own.out(read.flatten() * own.gate(x).sigmoid())


def unit(x):
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def rms(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def look(attention, x, place, others, places):
    """Attention of x at its place to others at theirs, and to the persistent tokens at none."""
    heads, kept = attention.persistent.key.shape[1], attention.persistent
    size = D // heads
    frequency = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)

    def turn(z, at):
        return torch.view_as_complex(z.view(heads, -1, 2)) * torch.polar(torch.ones_like(frequency), at * frequency)

    query = attention.query(x)
    scores = [(query.view(heads, size) * key).sum(-1) for key in kept.key]
    for other, at in zip(others, places, strict=True):
        scores.append((turn(query, place) * turn(attention.key(other), at).conj()).real.sum(-1))
    values = [*kept.value, *(attention.value(other).view(heads, size) for other in others)]
    weights = (torch.stack(scores) / math.sqrt(size)).softmax(0)
    return attention.out((weights[..., None] * torch.stack(values)).sum(0).flatten())


def gated(mixer, y, m):
    return rms(y) * mixer.attended.weight * (rms(m) * mixer.remembered.weight).sigmoid()


def as_context(mixer, memory, x, t, history):
    place = t % mixer.segment
    if place == 0:
        history.clear()
    recalled = memory.ask(memory.start, unit(mixer.ask(x).view(mixer.heads, -1))).flatten()
    history.append((rms(recalled) * mixer.recalled.weight, x))
    others = [z for pair in history for z in pair]
    y = look(mixer, x, place, others, [at for at in range(place + 1) for _ in range(2)])
    return gated(mixer, y, memory.learn(y))


def in_window(attention, x, t, history):
    history.append(x)
    first = max(0, t + 1 - attention.window)
    return look(attention, x, t, history[first:], range(first, t + 1))


def as_gate(mixer, memory, x, t, history):
    return gated(mixer, in_window(mixer.attention, x, t, history), memory.learn(x))


def as_layer(mixer, memory, x, t, history):
    return in_window(mixer.attention, memory.learn(x), t, history)


STEP = {TitansMAC: as_context, TitansMAG: as_gate, TitansMAL: as_layer}


@pytest.mark.parametrize("cut", [None, 6])
@pytest.mark.parametrize("make", BUILDS.values(), ids=BUILDS)
def test_equals_a_loop_with_autograd(make, cut):
    mixer, x = build(make), torch.randn(2, T, D, dtype=torch.float64)
    with torch.no_grad():
        y, state = mixer(x[:, :cut])
        if cut is not None:
            y = torch.cat([y, mixer(x[:, cut:], state)[0]], 1)
        for row in range(2):
            memory, history = Memory(mixer.learner), []
            expected = [STEP[type(mixer)](mixer, memory, own, t, history) for t, own in enumerate(x[row])]
            assert_close(y[row], torch.stack(expected), rtol=1e-11, atol=1e-12)


def by_titans_pytorch(weights):
    """The package's weights by our names."""
    gates = [f"to_{name}.0" for name in ("adaptive_step", "decay_factor", "momentum")]
    theirs = {name.removeprefix("memory."): p for name, p in weights.items() if name.startswith("memory.")}
    # one tap, the present, of the convolution that it does not have
    conv = torch.zeros(3 * D, 4, dtype=torch.float64)
    conv[:, -1] = 1
    learner = {
        "project.weight": torch.cat([theirs[f"to_{name}.0.weight"] for name in ("queries", "keys", "values")]),
        "conv.weight": conv,
        "gates.weight": torch.cat([theirs[f"{name}.weight"] for name in gates]),
        "gates.bias": torch.cat([theirs[f"{name}.bias"] for name in gates]),
        "initial": torch.cat([theirs[f"memory_model_parameters.{i}"].flatten(1) for i in range(2)], -1),
        "norm.weight": 1 + theirs["multihead_rmsnorm.gamma"][0, 0],
        # a gate for a head there, for a feature here
        "gate.weight": theirs["retrieve_gate.0.weight"].repeat_interleave(4, 0),
        "out.weight": theirs["combine_heads.weight"],
    }
    looks = dict(zip(("query", "key", "value"), weights["attention.to_qkv.weight"].chunk(3), strict=True))
    looks |= {"out": weights["attention.to_out.weight"]}
    kept = weights["attention.persistent_memory"].transpose(1, 2)
    return (
        {f"learner.{name}": p for name, p in learner.items()}
        | {f"attention.{name}.weight": p for name, p in looks.items()}
        | {"attention.persistent.key": kept[0], "attention.persistent.value": kept[1]}
    )


@pytest.mark.parametrize(("make", "name"), [(TitansMAG, "gate"), (TitansMAL, "layer")])
def test_equals_the_pieces_of_titans_pytorch(make, name):
    weights, stored = numbers("titans_arrangements")
    # its loss is a mean over a head's four features, not half of a sum
    mixer = make(D, window=5, tokens=3, heads=2, expand=3, chunk=5, rate=2 / 4).double()
    norms = {f"{norm}.weight": weights[norm] for norm in ("attended", "remembered")} if make is TitansMAG else {}
    mixer.load_state_dict(by_titans_pytorch(weights) | norms)
    assert_close(mixer(stored["x"])[0], stored[name], rtol=1e-12, atol=1e-12)


def silent(mixer):
    """The mixer with a memory that says nothing, which leaves the gate half open."""
    with torch.no_grad():
        mixer.learner.out.weight.zero_()
    return mixer


def test_a_silent_gate_without_tokens_leaves_half_of_a_window():
    mixer, window = silent(build(lambda: TitansMAG(D, window=5, tokens=0))), SlidingWindow(D, window=5).double()
    attention = mixer.attention.state_dict()
    window.load_state_dict({name: attention[name] for name in window.state_dict()})
    x = torch.randn(2, T, D, dtype=torch.float64)
    assert_close(mixer(x)[0], mixer.attended(window(x)[0]) / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: TitansMAG(D, window=5, heads=2), lambda: TitansMAC(D, segment=5, heads=2)])
def test_a_silent_memory_leaves_torchs_attention_to_persistent_tokens_and_what_is_near(make):
    """With keys of zero, which no turn changes: steps that are near differ only by their values."""
    mixer, x = silent(build(make)), torch.randn(2, T, D, dtype=torch.float64)
    own = mixer.attention if isinstance(mixer, TitansMAG) else mixer
    age = torch.arange(T)[:, None] - torch.arange(T)
    near = (age >= 0) & (age < 5)
    with torch.no_grad():
        own.key.weight.zero_()
        if isinstance(mixer, TitansMAC):
            # what is recalled is nothing, and takes as much of the softmax as a step with a value of zero
            mixer.recalled.weight.zero_()
            near = (age >= 0) & (torch.arange(T)[:, None] // 5 == torch.arange(T) // 5)
    tokens, heads, size = own.persistent.key.shape
    query, value = (project(x).view(2, T, heads, size).transpose(1, 2) for project in (own.query, own.value))
    key, first = (p.transpose(0, 1).expand(2, -1, -1, -1) for p in (own.persistent.key, own.persistent.value))
    key, value, seen = F.pad(key, (0, 0, 0, T)), torch.cat([first, value], 2), F.pad(near, (tokens, 0), value=True)
    if isinstance(mixer, TitansMAC):
        key, value, seen = F.pad(key, (0, 0, 0, T)), F.pad(value, (0, 0, 0, T)), torch.cat([seen, near], 1)
    read = own.out(F.scaled_dot_product_attention(query, key, value, seen).transpose(1, 2).flatten(-2))
    assert_close(mixer(x)[0], mixer.attended(read) / 2, rtol=1e-12, atol=1e-12)


def test_a_layer_with_a_window_of_one_step_is_titans_and_two_linear_maps():
    mixer = build(lambda: TitansMAL(D, window=1, tokens=0))
    titans = Titans(D).double()
    titans.load_state_dict({name: p for name, p in mixer.state_dict().items() if name.startswith("learner.")})
    x = torch.randn(2, 20, D, dtype=torch.float64)
    assert_close(mixer(x)[0], mixer.attention.out(mixer.attention.value(titans(x)[0])), rtol=1e-12, atol=1e-12)


def test_nothing_depends_on_where_in_a_sequence_a_step_is():
    """Steps that are all alike read all alike once the window is full: of persistent tokens, too."""
    mixer = silent(build(lambda: TitansMAG(D, window=5)))
    y, _ = mixer(torch.randn(1, 1, D, dtype=torch.float64).expand(1, 300, D))
    assert_close(y[:, 4:], y[:, 4:5].expand(1, 296, D), rtol=1e-11, atol=1e-12)
    assert (y[:, 4] - y[:, 3]).abs().max() > 1e-6


def test_a_fact_reaches_eight_segments_on_through_memory_alone():
    mixer = build(lambda: TitansMAC(D, segment=4))
    x = torch.randn(1, 36, D, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][0, -1].sum(), x)
    assert (grad[0, :4].abs().sum(1) > 0).all()


def test_what_a_segment_teaches_is_context_when_it_is_full():
    """Within a segment the memory that is asked is that of its start."""
    mixer = build(lambda: TitansMAC(D, segment=4))
    start = mixer.initial_state(1)[0][1]
    x = torch.randn(1, 8, D, dtype=torch.float64)
    _, ((_, three, *_), _) = mixer(x[:, :3])
    _, ((_, four, *_), _) = mixer(x[:, :4])
    _, ((_, seven, *_), _) = mixer(x[:, :7])
    assert_close(three, start, rtol=0, atol=0)
    assert not torch.allclose(four, start)
    assert_close(seven, four, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "wrong", "said"), [
    (TitansMAC, {"segment": 0}, "segment is 0: it must be at least 1"),
    (TitansMAC, {"tokens": -1}, "tokens is -1: it must be at least 0"),
    (TitansMAG, {"window": 0}, "window is 0: it must be at least 1"),
    (TitansMAG, {"chunk": 0}, "chunk is 0: it must be at least 1"),
    (TitansMAL, {"tokens": -1}, "tokens is -1: it must be at least 0"),
    (TitansMAL, {"rate": 0.0}, r"rate is 0\.0: it must be greater than 0"),
    (TitansMAC, {"heads": 3}, "width is 8: it must be a multiple of twice heads, which is 6"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(make, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(D, **wrong)


@pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
def test_whole_segments_are_walked_in_c_with_the_numbers_of_one_after_the_other(monkeypatch):
    mixer, x = TitansMAC(16, segment=8).double(), torch.randn(1, 44, 16, dtype=torch.float64, requires_grad=True)
    reset = torch.zeros(1, 44, dtype=torch.bool)
    reset[0, 20] = True
    grads, taken, several = torch.randn(1, 44, 16, dtype=torch.float64), [], mixer._in_turn
    inputs = x, *mixer.parameters()

    def ends():
        y, state = mixer(x, clock=Clock(reset=reset))
        loss = (y * grads).sum() + sum(part.square().sum() for part in leaves(state))
        return [y, *leaves(state), *torch.autograd.grad(loss, inputs)]

    with use("loop"):
        expected = ends()
    monkeypatch.setattr(mixer, "_in_turn", lambda *args: (taken.append(args[2][0].shape[1]), several(*args))[1])
    found = ends()
    # the one that the reset cuts short: steps 16 to 19
    assert taken == [1]
    assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("part", ["power", "silu"])
def test_a_learner_changed_by_hand_learns_as_it_says(part):
    mixer, x = TitansMAC(D, segment=4, heads=2), torch.randn(1, 8, D)
    if part == "power":
        mixer.learner.power = 3.0
    else:
        mixer.learner.conv.silu = False
    with use("loop"):
        expected = mixer(x)[0]
    assert_close(mixer(x)[0], expected)
