"""Segments walked in C against torch's own calls: memories, what is made, every gradient, and what has no C."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing import assert_close

from recurra.mixers import MIXERS
from recurra.ops import native as door
from recurra.ops.scan import use
from recurra.ops.walk import Walk, Way, loop, native, trace
from recurra.ops.walk.choose import walk
from recurra.state import each, leaves

pytestmark = pytest.mark.skipif(door.available() is not None, reason=str(door.available()))

D, N, C = 20, 3, 5


class _Reader(nn.Module):
    """Tokens that attend to themselves and a segment, with a norm, a feed-forward net and gates."""

    def __init__(self):
        super().__init__()
        self.three, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D)
        self.up, self.down, self.norm = nn.Linear(D, 34), nn.Linear(17, D, bias=False), nn.LayerNorm(D)
        self.tokens, self.gate = nn.Parameter(torch.randn(N, D)), nn.Parameter(torch.randn(D))

    def forward(self, memory, ready):
        state, total = memory
        query, own, read = self.three(state + self.tokens).unflatten(-1, (3, 2, -1)).unbind(2)
        key, value = ready.unflatten(-1, (2, 2, -1)).unbind(2)
        key, value = torch.cat([own, key], 1), torch.cat([read, value], 1)
        found = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
        h = state + self.out(found.flatten(-2))
        one, two = self.up(self.norm(h)).chunk(2, -1)
        gate = self.gate.sigmoid()
        new = gate * state + (1 - gate) * (h + self.down(one * F.gelu(two)))
        return (new, total + new.square().mean((1, 2))), ()


class _Meeting(nn.Module):
    """What steps make of a matrix, which a few of them then write: something of every segment, full or not."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.both = nn.Linear(D, 8), nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)

    def forward(self, memory, ready):
        key = F.relu(self.one(ready))
        key = torch.cat([key * key.roll(shift, -1) for shift in (1, 3)], -1)
        read = self.both(key @ memory) + self.both(ready)
        news = self.two(read)[:, 1::2] - (key @ memory)[:, 1::2]
        # what is made may lie otherwise than in order
        return memory + key[:, 1::2].mT @ news.softmax(-1).tanh(), (read.mT, {0: key}[0].select(1, 0))


def _record(kind, batch, segments, dtype, plain=False):
    torch.manual_seed(batch + segments)
    module = kind().to(dtype)
    memory = (torch.randn(batch, N, D), torch.randn(batch)) if kind is _Reader else torch.randn(batch, 16, D)
    ready = torch.randn(batch, segments, C, 2 * D if kind is _Reader else D)
    fresh, full = torch.rand(batch, segments) < 0.3, torch.rand(batch, segments) < 0.6
    full[:, segments // 2] = False
    if plain:
        fresh, full = None, torch.ones_like(full)
    memory, ready, start = (each(lambda x: x.to(dtype).requires_grad_(), x) for x in (memory, ready, memory))
    way = Way(module.forward, tuple(module.parameters()), (kind,), makes=kind is _Meeting)
    return Walk(way, ready, start, fresh, full), memory


def _run(implementation, record, memory):
    results = [*leaves(implementation.scan(record, memory))]
    weights = torch.Generator().manual_seed(0)
    total = sum((x * torch.randn(x.shape, generator=weights, dtype=x.dtype)).sum() for x in results)
    ins = [*record.way.weights, *leaves((record.ready, record.start, memory))]
    grads = torch.autograd.grad(total, ins, materialize_grads=True, allow_unused=True)
    return [*(x.detach() for x in results), *grads]


@pytest.mark.parametrize(("kind", "batch", "segments", "plain"), [
    (_Reader, 5, 7, False), (_Reader, 5, 1, True), (_Reader, 3, 4, True), (_Reader, 1, 6, False),
    (_Meeting, 5, 7, False), (_Meeting, 5, 3, True), (_Meeting, 5, 1, False),
])  # fmt: skip
def test_values_and_gradients_equal_the_loops(kind, batch, segments, plain):
    record, memory = _record(kind, batch, segments, torch.float64, plain)
    assert native.declines(record, memory) is None
    for x, y in zip(_run(native, record, memory), _run(loop, record, memory), strict=True):
        assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [_Reader, _Meeting])
def test_float32_error_is_at_most_twice_the_loops(kind):
    truth = _run(loop, *_record(kind, 5, 7, torch.float64))
    record, memory = _record(kind, 5, 7, torch.float32)
    for x, y, true in zip(_run(native, record, memory), _run(loop, record, memory), truth, strict=True):
        off, theirs = ((z.double() - true).abs().max() for z in (x, y))
        assert off <= 2 * theirs + 2 * torch.finfo(torch.float32).eps * true.abs().max()


def test_any_number_of_threads_gives_the_same_bits():
    record, memory = _record(_Reader, 5, 7, torch.float64)
    had, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(_run(native, record, memory))
    finally:
        torch.set_num_threads(had)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


def test_frozen_weights_and_no_gradients():
    record, memory = _record(_Reader, 5, 7, torch.float64)
    record.way.weights[0].requires_grad_(False)
    record = record._replace(ready=record.ready.detach())
    assert native.declines(record, memory) is None
    results = [*leaves(native.scan(record, memory))]
    ins = [*record.way.weights[1:], *leaves(memory)]
    got = torch.autograd.grad(sum(x.square().sum() for x in results), ins)
    want = torch.autograd.grad(sum(x.square().sum() for x in leaves(loop.scan(record, memory))), ins)
    for x, y in zip(got, want, strict=True):
        assert_close(x, y, rtol=1e-10, atol=1e-10)
    with torch.inference_mode():
        for x, y in zip(leaves(walk(record, memory)), results, strict=True):
            assert torch.equal(x, y)


def test_where_nothing_is_full_nothing_is_written():
    record, memory = _record(_Reader, 3, 4, torch.float64, plain=True)
    seen = []
    way = record.way._replace(function=lambda *x: seen.append(x))
    record = record._replace(way=way, full=torch.zeros_like(record.full))
    (before, _), after = walk(record, memory)
    assert after is memory and not seen
    assert_close(before[1], memory[1][:, None].expand(-1, 4))


def _of(function, *weights, dtype=torch.float32, key=("some",)):
    x = torch.ones(1, 3, dtype=dtype)
    way = Way(lambda memory, ready: (function(memory), ()), weights, key)
    return Walk(way, torch.ones(1, 1, 2, dtype=dtype), x, None, torch.ones(1, 1, dtype=torch.bool)), x


SECRET = torch.ones(3)


@pytest.mark.parametrize(("record", "reason"), [
    (_of(lambda x: x + SECRET, key=("secret",)), "none of the weights"),
    (_of(lambda x: x.sort(1)[0], key=("sort",)), "'sort' gives no tensor"),
    (_of(lambda x: x.clone().add_(1), key=("place",)), "in place"),
    (_of(lambda x: x, key=None), "not said"),
    (_of(lambda x: x, dtype=torch.bfloat16), "float32 or float64"),
    (_of(lambda x: x, torch.ones(2, 3).T), "gaps"),
    (_of(lambda x: x, torch.ones(2).double()), "one type"),
])  # fmt: skip
def test_what_has_no_c_is_declined(record, reason):
    found = native.declines(*record)
    assert found is not None and reason in found
    (before, _), _ = walk(*record)
    assert_close(before[:, 0], record[1])


def test_what_must_be_seen_call_by_call_is_declined():
    record, memory = _of(lambda x: x * 2)
    with torch.autocast("cpu"):
        assert "autocast" in (native.declines(record, memory) or "")
    seen = []
    torch.vmap(lambda x: (seen.append(native.declines(record._replace(start=x), x)), x)[1])(memory[None])
    assert "vmap" in seen[0]


def _hooked(part):
    part.register_forward_hook(lambda module, given, y: 2 * y)


def _parametrised(part):
    parametrize.register_parametrization(part, "weight", nn.Softplus())


def _replaced(part):
    forward = part.forward
    part.forward = lambda x: 2 * forward(x)


@pytest.mark.parametrize("alter", [_hooked, _parametrised, _replaced])
@pytest.mark.parametrize("name", ["rmt", "armt", "lm2", "block_recurrent", "temporal_latent_bottleneck"])
def test_a_part_that_was_altered_is_called(name, alter):
    """What was made of the same shapes before knows nothing of it."""
    mixer, x = MIXERS[name](8, segment=4).double(), torch.randn(2, 13, 8, dtype=torch.float64)
    parts = {
        "rmt": "feed_forward.up", "armt": "memory_key", "lm2": "memory_gate", "block_recurrent": "hidden",
        "temporal_latent_bottleneck": "up.out",
    }  # fmt: skip
    with torch.no_grad():
        for weight in mixer.parameters():
            # some begin as zeros
            weight.add_(0.1 * torch.randn_like(weight))
    plain = mixer(x)[0]
    alter(mixer.get_submodule(parts[name]))
    found = mixer(x)[0]
    with use("loop"):
        assert_close(found, mixer(x)[0], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found, plain)


def test_a_constant_of_a_part_that_changes_is_seen():
    norm, x = nn.LayerNorm(3, elementwise_affine=False), torch.randn(1, 3)
    way = Way(lambda memory, ready: (norm(memory), ()), (), ("constant",), (norm,))
    record = Walk(way, torch.ones(1, 1, 2), x, None, torch.ones(1, 1, dtype=torch.bool))
    for norm.eps in (1e-6, 0.5):
        assert native.declines(record, x) is None
        assert_close(native.scan(record, x)[1], norm(x))


def test_what_was_kept_otherwise_is_not_used():
    record, memory = _record(_Reader, 2, 2, torch.float64)
    _, memory, ready = native._block(record, memory)
    *_, dear = trace.forward(record.way, memory, ready)
    assert trace.backward(record.way, memory, ready, dear).kept
    assert not trace.backward(record.way, memory, ready, dear[1:]).kept


def test_what_torch_attends_by_is_left_as_it_is():
    """Other threads would see it."""
    seen = []

    def function(x):
        seen.append(torch.backends.cuda.flash_sdp_enabled())
        return F.scaled_dot_product_attention(x, x, x)

    record, memory = _of(lambda x: function(x[:, None])[:, 0], key=("attends",))
    assert native.declines(record, memory) is None
    assert seen == [True]


def test_a_weight_that_is_given_twice_is_declined():
    shared = nn.Parameter(torch.ones(3))
    record, memory = _of(lambda x: x * shared * shared, shared, shared, key=("twice",))
    assert "twice" in (native.declines(record, memory) or "")


def test_two_weights_in_one_place_are_declined():
    """The C of their trace would read the first for both, also once they are two."""
    one, two = (nn.Parameter(torch.full((3,), x)) for x in (2.0, 3.0))
    had, two.data = two.data, one.data
    record, memory = _of(lambda x: x * one - two, one, two, key=("one place",))
    assert "twice" in (native.declines(record, memory) or "")
    two.data = had
    assert native.declines(record, memory) is None
    assert_close(native.scan(record, memory)[1], memory * one - two)


def test_a_hook_of_all_modules_is_heard():
    norm = nn.LayerNorm(3)
    record, memory = _of(norm, *norm.parameters(), key=("every",))
    record = record._replace(way=record.way._replace(parts=(norm,)))
    assert native.declines(record, memory) is None
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, y: 2 * y)
    try:
        assert "hooks" in (native.declines(record, memory) or "")
    finally:
        hook.remove()
