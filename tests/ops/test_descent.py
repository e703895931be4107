"""What the engine tests do not ask of memories in training: gradients by autograd, neighbours and limits."""

import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.clock import Clock
from recurra.ops import Delta, Descent, Net, Scan, native, use
from recurra.ops.delta import loop as delta_loop
from recurra.ops.descent import retention
from recurra.ops.descent.whole import Taught, tables, whole

B, T, H, K, V = 2, 13, 2, 4, 3
NETS = {
    "linear": Net((K, V)),
    "linear-bias": Net((K, V), bias=True),
    "two": Net((K, 5, V)),
    "three-tanh": Net((K, 5, 3, V), bias=True, approximate="tanh"),
    "normalised": Net((K, 5, K), bias=True, normalised=True),
}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
needs_compiler = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
each_way = pytest.mark.parametrize("way", ["loop", "chunk", pytest.param("native", marks=needs_compiler)])


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def share(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def drawn(net, chunk=1, **more):
    query, key = (F.normalize(normal(B, T, H, K), dim=-1) for _ in range(2))
    norm = normal(2, H, K) if net.normalised else None
    value, initial = normal(B, T, H, net.sizes[-1]), 0.5 * normal(H, net.size)
    return Descent(query, key, value, 0.3 * share(B, T, H), initial, net, chunk, norm=norm, **more)


def started(record, momentum=False):
    start = record.initial.expand(B, -1, -1)
    state = start, 0 * start, torch.ones_like(start[..., 0]), torch.zeros_like(start[:, 0, 0])
    return (*state, 0 * start) if momentum else state


def run(record, way="loop"):
    with use(way):
        return Scan()(record, started(record, record.log_momentum is not None))


def loss(record, flat, key, value):
    """Of one key, written without the engine."""
    x = key
    for i, weight in enumerate(record.net.layers(flat)):
        x = F.gelu(x, approximate=record.net.approximate) if i else x
        x = torch.einsum("bhi,bhio->bho", F.pad(x, (0, 1), value=1.0) if record.net.bias else x, weight)
    if record.net.normalised:
        x = key + record.norm[0] * F.layer_norm(x, x.shape[-1:], eps=1e-6) + record.norm[1]
    error = x - value
    if record.threshold is not None:
        most = record.threshold[:, 0, :, None]
        inside = error.abs() <= most
        far = most * (error.abs() - most / 2)
        return torch.where(inside, error.square() / 2, far).sum()
    return ((error.square() + (0 if record.power == 2 else 1e-6)) ** (record.power / 2) / record.power).sum()


@each_net
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, "huber"])
def test_closed_forms_are_the_gradients_of_the_stated_losses(net, power):
    huber = power == "huber"
    record = drawn(net, chunk=4, power=2.0 if huber else power)
    record = Descent(*(x[:, :1] if name in TIMED else x for name, x in record._asdict().items()))
    record = record._replace(threshold=0.5 + share(B, 1, H)) if huber else record
    flat = record.initial.expand(B, -1, -1).clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(record, flat, record.key[:, 0], record.value[:, 0]), flat)
    with torch.no_grad():
        _, (_, moved, *_) = run(record)
    assert_close(moved, -record.rate[:, 0, :, None] * grad, rtol=1e-10, atol=1e-12)


TIMED = ("query", "key", "value", "rate")


@each_way
def test_a_matrix_in_chunks_of_one_step_is_the_delta_rule(way):
    record = drawn(Net((K, V)))
    read, (start, *_) = run(record, way)
    rate = record.rate[..., None]
    delta = Delta(record.query, record.key, rate * record.value, rate * record.key)
    want, last = delta_loop.scan(delta, record.initial.unflatten(-1, (K, V)).expand(B, -1, -1, -1))
    assert_close(read, want, rtol=1e-12, atol=1e-12)
    assert_close(start.unflatten(-1, (K, V)), last, rtol=1e-12, atol=1e-12)


@each_way
def test_decay_is_of_what_the_gradient_did_not_see(way):
    """The gated delta rule corrects what has faded; here the gradient is taken before: they differ by that alone."""
    record = drawn(Net((K, V)), log_decay=share(B, T, H).log())
    read, _ = run(record, way)
    memory, reads = record.initial.unflatten(-1, (K, V)).expand(B, -1, -1, -1), []
    for t in range(T):
        key, rate = record.key[:, t], record.rate[:, t, :, None]
        error = torch.einsum("bhk,bhkv->bhv", key, memory) - record.value[:, t]
        memory = record.log_decay[:, t, :, None, None].exp() * memory - key[..., None] * (rate * error)[..., None, :]
        reads.append(torch.einsum("bhk,bhkv->bhv", record.query[:, t], memory))
    assert_close(read, torch.stack(reads, 1), rtol=1e-12, atol=1e-12)


@each_way
@each_net
def test_without_a_rate_weights_only_fade(net, way):
    record = drawn(net, chunk=5, log_decay=share(B, T, H).log(), log_momentum=share(B, T, H).log())
    record = record._replace(rate=0 * record.rate)
    _, (start, moved, kept, _, momentum) = run(record, way)
    faded = record.log_decay.sum(1).exp()[..., None] * record.initial
    assert_close(kept[..., None] * start, faded, rtol=1e-12, atol=1e-14)
    assert not moved.any() and not momentum.any()


@each_way
def test_momentum_of_zero_is_none(way):
    record = drawn(NETS["two"], chunk=5, log_decay=share(B, T, H).log())
    want, _ = run(record, way)
    read, _ = run(record._replace(log_momentum=torch.full((B, T, H), -800.0, dtype=torch.float64)), way)
    assert_close(read, want, rtol=1e-12, atol=1e-12)


@each_way
def test_a_threshold_that_no_error_reaches_changes_nothing(way):
    record = drawn(NETS["two"], chunk=5)
    want, _ = run(record, way)
    read, _ = run(record._replace(threshold=torch.full((B, T, H), 1e6, dtype=torch.float64)), way)
    assert_close(read, want, rtol=0, atol=0)


@each_way
def test_an_outlier_moves_weights_no_further_than_the_threshold(way):
    record = drawn(Net((K, V)), threshold=torch.full((B, T, H), 0.5, dtype=torch.float64))
    wild, wilder = (record.value.index_fill(1, torch.tensor([6]), x) for x in (1e3, 1e6))
    assert_close(run(record._replace(value=wild), way)[0], run(record._replace(value=wilder), way)[0])


@each_way
@pytest.mark.parametrize("power", [2.0, 3.0])
def test_the_norm_of_two_retains_as_decay_does(way, power):
    record = drawn(NETS["two"], chunk=5, log_decay=share(B, T, H).log(), power=power)
    want, _ = run(record, way)
    read, _ = run(record._replace(mirror=retention.lq(2.0)), way)
    assert_close(read, want, rtol=1e-12, atol=1e-12)


@each_way
def test_relative_entropy_keeps_weights_positive_and_their_sums(way):
    """And the sum of logarithms is the published update, whose logarithm is of the weights themselves."""
    record = drawn(Net((K, V)), mirror=retention.kl(), log_decay=share(B, T, H).log())
    read, (dual, *_) = run(record, way)
    weights, reads = retention.kl().weights(record.initial.unflatten(-1, (K, V)).expand(B, -1, -1, -1)), []
    for t in range(T):
        key, rate, alpha = record.key[:, t], record.rate[:, t, :, None], record.log_decay[:, t, :, None, None].exp()
        error = torch.einsum("bhk,bhkv->bhv", key, weights) - record.value[:, t]
        sums = alpha * (weights / K).log() - key[..., None] * (rate * error)[..., None, :]
        weights = K * sums.softmax(-2)
        reads.append(torch.einsum("bhk,bhkv->bhv", record.query[:, t], weights))
    assert_close(read, torch.stack(reads, 1), rtol=1e-10, atol=1e-12)
    (now,) = record.weights(dual)
    assert (now > 0).all()
    assert_close(now.sum(-2), torch.full((B, H, V), float(K), dtype=torch.float64))


def test_a_mirror_goes_to_other_processes():
    x = torch.randn(2, 5, 3)
    for mirror in (retention.lq(3.0), retention.kl(), retention.elastic(0.1)):
        sent = pickle.loads(pickle.dumps(mirror))
        assert torch.equal(sent.weights(sent.settled(x)), mirror.weights(mirror.settled(x)))


def test_soft_thresholding_forgets_what_is_small():
    x = torch.tensor([[-2.0, -0.05, 0.0], [0.05, 0.1, 2.0]])
    assert_close(retention.elastic(0.1).weights(x), torch.tensor([[-1.9, 0.0, 0.0], [0.0, 0.0, 1.9]]))


def learned(way, record, clock=None):
    """Read, state and gradients."""
    names = ("query", "key", "value", "rate", "initial", "log_decay", "log_momentum", "norm", "scale", "threshold")
    parts = {n: x.detach().requires_grad_() for n in names if (x := getattr(record, n)) is not None}
    record = record._replace(**parts)
    state = started(record, record.log_momentum is not None)
    with use(way):
        read, last = Scan()(record, state, clock)
    torch.manual_seed(1)
    total = sum((x * torch.randn_like(x)).sum() for x in (read, *last))
    grads = torch.autograd.grad(total, list(parts.values()), allow_unused=True)
    return [read, *last, *(g for g in grads if g is not None)]


def lasting(net, momentum, chunk=16, steps=150, scaled=False, huber=False, fades=0.2, **more):
    """Steps for some windows of the kernel's, of heads as wide as their net."""
    gates = (B, steps, H)
    query, key = (F.normalize(normal(*gates, net.sizes[0]), dim=-1) for _ in range(2))
    norm = 1 + 0.1 * normal(2, H, net.sizes[-1]) if net.normalised else None
    # mild steps: a net in training tells its errors apart, whatever computes them; so do weights of a given norm, of
    # which a step turns more the more has faded
    rate, decay, turn = 0.02 * share(*gates), -fades * share(*gates), share(*gates).log()
    value, initial = normal(*gates, net.sizes[-1]), 0.3 * normal(H, net.size)
    return Descent(
        query, key, value, rate, initial, net, chunk, decay, turn if momentum else None, norm,
        share(chunk) if scaled else None, threshold=0.2 + share(*gates) if huber else None, **more,
    )  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
@pytest.mark.parametrize(
    ("net", "more"),
    [
        (Net((17, 5)), {"power": 1.5, "huber": True}),
        (Net((4, 33, 18), bias=True), {"chunk": 19}),
        (Net((16, 20, 3, 16), normalised=True), {"scaled": True, "huber": True}),
        (Net((15, 20, 15), bias=True, approximate="tanh", normalised=True), {"scaled": True, "power": 3.0}),
        (Net((16, 20, 16), normalised=True), {"mirror": retention.lq(3.0), "power": 3.0, "fades": 0.02}),
        (Net((15, 18, 15), bias=True, normalised=True, epsilon=1e-2), {"mirror": retention.kl(), "scaled": True}),
        (Net((17, 5)), {"mirror": retention.elastic(0.1), "chunk": 19}),
    ],
    ids=["linear", "bias", "three", "normalised", "lq", "kl", "elastic"],
)
def test_in_c_as_by_chunks_over_windows_and_sequences(net, more, momentum):
    record = lasting(net, momentum, **more)
    reset, valid = torch.rand(B, 150) < 0.02, torch.rand(B, 150) < 0.9
    for clock in (None, Clock(reset, valid)):
        for x, y in zip(learned("native", record, clock), learned("chunk", record, clock), strict=True):
            assert_close(x, y, rtol=1e-8, atol=1e-8)


@needs_compiler
def test_in_c_threads_change_nothing(request):
    record = lasting(Net((16, 64, 16)), True, steps=600)
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    want = learned("native", record)
    for several in (2, 3):
        torch.set_num_threads(several)
        assert all(torch.equal(x, y) for x, y in zip(learned("native", record), want, strict=True))


def test_a_whole_chunk_by_plain_calls_is_that_of_the_loop():
    logs = {name: -share(B, T, H).requires_grad_() for name in ("log_decay", "log_momentum")}
    record = drawn(NETS["two"], chunk=T, **logs)
    given = [getattr(record, name) for name in Taught._fields]
    start, before = (0.3 * normal(B, H, record.net.size) for _ in range(2))
    inputs = [x.detach().requires_grad_() for x in (*given, start, before)]
    *given, start, before = inputs
    found = []
    with use("loop"):
        fresh = start, 0 * start, torch.ones(B, H, dtype=start.dtype), torch.zeros(B, dtype=start.dtype), before
        read, (after, *_, moving) = Scan()(record._replace(**dict(zip(Taught._fields, given, strict=True))), fresh)
        found.append((read, after, moving))
    taught = Taught(*(x.transpose(1, 2) for x in given))
    layers = (tuple(record.net.layers(x)) for x in (start, before))
    read, *moved = whole(taught, *layers, tables(T, start.detach()))
    found.append((read.transpose(1, 2), *(torch.cat([x.flatten(2) for x in several], -1) for several in moved)))
    torch.manual_seed(1)
    grads = [normal(*x.shape) for x in found[0]]
    one, other = ([*ends, *torch.autograd.grad(ends, inputs, grads)] for ends in found)
    assert_close(other, one, rtol=1e-10, atol=1e-12)
