"""What compiled cells owe beyond the engine tests: any shape, any clock, exact functions, honest declines."""

import logging

import numpy
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock, use
from recurra.ops import Cell, Rule, Scan, native as door
from recurra.ops.cell import loop, native, rules
from recurra.ops.cell.trace import trace
from recurra.ops.scan import choose, name_of, prepare

pytestmark = pytest.mark.skipif(door.available() is not None, reason=str(door.available()))


def slstm(drive, recur, state):
    """Exponential gates with a running maximum: branches, a quotient, ties."""
    _, c, n, m = state
    i, f, z, o = (a + b for a, b in zip(drive, recur, strict=True))
    kept = m + F.logsigmoid(f)
    m = torch.where(n == 0, i, torch.maximum(i, kept))
    write, keep = torch.exp(i - m).clamp_max(1), torch.exp(kept - m).clamp_max(1)
    c = keep * c + write * torch.tanh(z)
    n = keep * n + write
    return torch.sigmoid(o) * c / n, (torch.sigmoid(o) * c / n, c, n, m)


def oscillator(drive, recur, state, stiffness, damping, log_dt):
    """The read is the position, the product reads the position, the velocity moves first."""
    position, velocity = state
    dt = torch.exp(log_dt)
    force = torch.tanh(drive[0] + recur[0])
    velocity = (velocity + dt * (force - stiffness * position)) / (1 + dt * damping)
    position = position + dt * velocity
    return position, (position, velocity)


def paragru(drive, recur, state, scale):
    """A diagonal R of three rows and a parameter of the rule's own."""
    (h,) = state
    z, r = torch.sigmoid(drive[0] + recur[0]), torch.sigmoid(drive[1] + recur[1])
    n = torch.tanh(drive[2] + scale * r * recur[2])
    return n - h, ((1 - z) * n + z * h,)


def many(drive, recur, state):
    """What torch writes in one word and C in several."""
    (h,) = state
    x = F.softplus(drive[0]) - F.gelu(recur[0]) + F.silu(h) + F.leaky_relu(drive[0], 0.1) + F.elu(recur[0])
    x = x + drive[0].clamp(-1, 1) ** 3 + (1 + h.square()).rsqrt() - (2 + h).abs().pow(0.7) + torch.sin(h)
    return x / 4, (torch.tanh(x / 4 + torch.tensor(0.25)),)


def ticking(drive, recur, state, scale, *, tick):
    """Three ticks with two gates and two R's: the state's second vector changes midway, one vector is handed on."""
    h, c = state[:2]
    if tick == 0:
        return h, (torch.tanh(drive[0] + recur[0]), c, torch.sigmoid(recur[1]) * h)
    if tick == 1:
        return h, (h, c + scale * recur[0] * recur[1], state[2] + h)
    h = torch.sigmoid(drive[1] + recur[1]) * torch.tanh(c + recur[0]) + 0.1 * state[2]
    return h - c, (h, torch.tanh(c))


RULES = {
    "ticking": Rule("ticking", ticking, 2, 2, state=2, params=1, operator="ticks", ticks=(0, 1, 0), handed=1),
    "gru_before": rules.GRU_BEFORE,
    "lstm": rules.LSTM,
    "gru": rules.GRU_AFTER,
    "relu": rules.ELMAN_RELU,
    "slstm": Rule("slstm", slstm, 4, 4, state=4),
    "oscillator": Rule("oscillator", oscillator, 1, 1, state=2, params=3),
    "paragru": Rule("paragru", paragru, 3, 3, params=1, operator="diagonal"),
    "many": Rule("many", many, 1, 1),
}
# B, T, heads, units of each: narrower than a vector, ragged, several heads, rows beyond what waits in the cache
SHAPES = [
    (1, 1, 1, 5), (3, 7, 1, 20), (2, 9, 4, 16), (5, 6, 1, 70), (26, 4, 2, 65), (4, 3, 1, 33), (13, 2, 1, 18),
]  # fmt: skip


def _make(rule, B, T, heads=1, d=6, dtype=torch.float64, inputs=None):
    """A record with W where `inputs` says its width, and a state."""
    N = heads * d
    wide = lambda *shape: torch.randn(shape, dtype=torch.float64)  # noqa: E731
    rows = rule.recur * (max(rule.ticks) + 1)
    weight = wide(rows, N) / 1.5 if rule.operator == "diagonal" else wide(rows, heads, d, d) / d**0.5
    params = torch.rand(rule.params, N, dtype=torch.float64) if rule.params else None
    state = [wide(B, N) / 2 for _ in range(rule.state)]
    if rule.state == 4:
        state[2] = state[2].abs() + 0.1
    drive = wide(B, T, inputs or rule.drive * N)
    entering, bias = (wide(rule.drive * N, inputs) / inputs**0.5, wide(rule.drive * N)) if inputs else (None, None)
    record = Cell(rule, drive, weight, params, input_weight=entering, bias=bias)
    lower = lambda x: x.to(dtype) if isinstance(x, torch.Tensor) else x  # noqa: E731
    return Cell(*map(lower, record)), tuple(map(lower, state))


def _run(module, record, state, clock=None, gradients=True):
    """Reads, last state and, if asked, the gradients of a fixed function of both."""
    float_ = lambda x: isinstance(x, torch.Tensor) and x.is_floating_point()  # noqa: E731
    record = Cell(*(x.detach().requires_grad_(gradients) if float_(x) else x for x in record))
    state = tuple(x.detach().requires_grad_(gradients) for x in state)
    ready, start = prepare(record, state, clock)
    assert module.declines(ready, start) is None
    read, last = module.scan(ready, start)
    if not gradients:
        return [read, *last]
    torch.manual_seed(1)
    total = sum((x * torch.randn(x.shape, dtype=torch.float64).to(x.dtype)).sum() for x in (read, *last))
    wanted = [x for x in (*record, *state) if float_(x)]
    grads = torch.autograd.grad(total, wanted, materialize_grads=True)
    return [x.detach() for x in (read, *last, *grads)]


def _clock(B, T, how):
    reset = torch.rand(B, T) < 0.3 if how in ("reset", "both") else None
    valid = torch.rand(B, T) < 0.7 if how in ("valid", "both") else None
    return Clock(reset, valid)


@pytest.mark.parametrize("how", ["plain", "both"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_any_shape_equals_the_loop(name, shape, how):
    record, state = _make(RULES[name], *shape)
    clock = _clock(*shape[:2], how)
    got, want = (_run(x, record, state, clock) for x in (native, loop))
    assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["plain", "reset", "valid", "both"])
@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "paragru", "ticking"])
def test_a_projection_in_several_pieces_equals_the_loop(name, time_first, how, monkeypatch):
    monkeypatch.setattr(native, "PIECE", 20)
    record, state = _make(RULES[name], 3, 37, 1, 10, inputs=7)
    if time_first:
        record = record._replace(drive=record.drive.transpose(0, 1).contiguous().transpose(0, 1))
    clock = _clock(3, 37, how)
    got, want = (_run(x, record, state, clock) for x in (native, loop))
    assert_close(got, want, rtol=1e-10, atol=1e-10)
    bare = record._replace(bias=None)
    assert_close(_run(native, bare, state, clock), _run(loop, bare, state, clock), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["plain", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "T", "heads", "d", "inputs"), [
    (1, 1, 1, 16, 16), (1, 1, 1, 37, 50), (1, 5, 2, 24, 3), (4, 1, 1, 33, 16), (7, 2, 4, 17, 40), (16, 1, 1, 40, 7),
])  # fmt: skip
@pytest.mark.parametrize("name", ["lstm", "gru", "oscillator", "paragru", "ticking", "gru_before"])
def test_a_few_steps_read_the_weights_where_they_lie(name, B, T, heads, d, inputs, dtype, how):
    record, state = _make(RULES[name], B, T, heads, d, dtype, inputs)
    clock, before = _clock(B, T, how), [x.clone() for x in state]
    got, want = (_run(x, record, state, clock, gradients=False) for x in (native, loop))
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    assert_close(got, want, rtol=tolerance, atol=tolerance)
    assert_close(list(state), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", RULES)
def test_single_precision_errs_at_most_twice_as_much_as_the_loop(name):
    ours, theirs = [], []
    for _ in range(3):
        record, state = _make(RULES[name], 4, 50, 1, 48)
        lower = [x.float() if isinstance(x, torch.Tensor) else x for x in record]
        low, low_state = Cell(*lower), tuple(x.float() for x in state)
        high = Cell(*(x.double() if isinstance(x, torch.Tensor) else x for x in lower))
        truth = _run(loop, high, tuple(x.double() for x in low_state))
        for into, module in ((ours, native), (theirs, loop)):
            got = _run(module, low, low_state)
            into.append([float((x - y).abs().max() / y.abs().max()) for x, y in zip(got, truth, strict=True)])
    for x, y in zip(numpy.max(ours, 0), numpy.max(theirs, 0), strict=True):
        assert x <= 2 * y + 5e-7


@pytest.mark.parametrize("shape", [(9, 60, 1, 160), (1, 200, 1, 200), (2, 150, 1, 160)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru", "oscillator", "paragru", "ticking"])
def test_threads_share_rows_or_units(name, shape):
    """Sizes at which two threads do run, by rows and by units."""
    record, state = _make(RULES[name], *shape)
    clock = _clock(*shape[:2], "both")
    one = _run(native, record, state, clock)
    torch.set_num_threads(2)
    try:
        two = _run(native, record, state, clock)
    finally:
        torch.set_num_threads(1)
    assert_close(two, one, rtol=1e-11, atol=1e-11)
    assert_close(one, _run(loop, record, state, clock), rtol=1e-9, atol=1e-9)


FUNCTIONS = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf"]


def functions(drive, recur, state):
    """Each function as one vector of the state: one kernel for all."""
    return drive[0], tuple(getattr(torch, name)(drive[0]) for name in FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_exact_to_a_few_roundings(name):
    """At most 2.5 units in the last place, the edges as in libm; subnormal numbers may be zero."""
    tiny = torch.finfo(torch.float32).tiny
    rule = Rule("functions", functions, 1, 0, state=len(FUNCTIONS), operator="none")
    x = torch.cat([torch.linspace(-110, 110, 400001), torch.logspace(-37, 38, 100001), -torch.logspace(-37, 1, 50001),
                   torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, -1.0])]).float()  # fmt: skip
    record, state = Cell(rule, x.view(1, 1, -1)), (torch.zeros(1, len(x)),) * len(FUNCTIONS)
    assert native.declines(record, state) is None
    y = native.scan(record, state)[1][FUNCTIONS.index(name)].flatten()
    truth = getattr(torch, name)(x.double())
    rounded = truth.float()
    odd = ~torch.isfinite(rounded) | ~torch.isfinite(y)
    assert_close(y[odd], rounded[odd], equal_nan=True, rtol=0, atol=0)
    usual, small = ~odd & (truth.abs() >= tiny), ~odd & (truth.abs() < tiny)
    unit = torch.from_numpy(numpy.spacing(rounded.abs().numpy())).double()
    assert ((y.double() - truth).abs() / unit)[usual].max() < 2.5
    assert (y[small].abs() <= tiny).all()


def test_the_edges_of_rules_are_torchs():
    """NaN through maximum and relu, ties, signs, a quotient by zero."""

    def edges(drive, recur, state):
        a, b = drive
        y = torch.maximum(a, b) + torch.minimum(a, b) + torch.relu(a) + torch.sign(b) + torch.where(a > b, a / b, b)
        return y, (y,)

    ends = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    drive = torch.stack([x.flatten() for x in torch.meshgrid(ends, ends, indexing="ij")]).reshape(1, 1, -1)
    record, state = Cell(Rule("edges", edges, 2, 0, operator="none"), drive), (torch.zeros(1, 49, dtype=torch.float64),)
    got, want = (_run(x, record, state) for x in (native, loop))
    assert_close(got, want, equal_nan=True)


def _rule(function, **more):
    return Rule("mine", function, 1, 1, **more)


CLOSED, SCALAR = torch.rand(6), torch.tensor(2.0)
REFUSED = {
    "softmax": _rule(lambda d, r, s: (torch.softmax(d[0], -1), s)),
    "sum": _rule(lambda d, r, s: (d[0] * r[0].sum(-1, keepdim=True), s)),
    "flip": _rule(lambda d, r, s: (d[0].flip(-1), s)),
    "cumsum": _rule(lambda d, r, s: (d[0].cumsum(-1), s)),
    "empty_like": _rule(lambda d, r, s: (F.dropout(d[0]), s)),
    "closes over a tensor": _rule(lambda d, r, s: (d[0] * CLOSED, s)),
    "rule closes over": _rule(lambda d, r, s: (d[0] * SCALAR, s)),
    "constant power": _rule(lambda d, r, s: (d[0] ** r[0], s)),
    "out of range": _rule(lambda d, r, s: (d[0] + d[1], s), state=2),
    "returned 1 states and declares 2": _rule(lambda d, r, s: (d[0], (d[0],)), state=2),
    "is 30 products": _rule(lambda d, r, s, tick: (d[0] + r[0], s), operator="ticks", ticks=(0,) * 30),
    "own products": _rule(lambda d, r, s: (d[0] + s[0] @ r[0][0, 0], s), operator="own"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_compiled_says_why(reason):
    rule = REFUSED[reason]
    record = Cell(rule, torch.rand(2, 3, 6 * rule.drive), torch.rand(rule.recur, 1, 6, 6))
    state = tuple(torch.rand(2, 6) for _ in range(rule.state))
    said = native.declines(record, state) or ""
    assert reason in said, said
    with use("native"), pytest.raises(ValueError):
        Scan()(record, state)


def test_what_has_another_shape_is_declined():
    record, state = _make(rules.LSTM, 2, 3, inputs=5)
    assert native.declines(record, state) is None
    for name in ("drive", "weight", "input_weight", "bias"):
        wrong = record._replace(**{name: getattr(record, name)[..., 1:]})
        assert "shapes" in (native.declines(wrong, state) or "")
    assert "shapes" in (native.declines(record, state[:1]) or "")
    assert "shapes" in (native.declines(record, tuple(x[:1] for x in state)) or "")
    assert "shapes" in (native.declines(record._replace(reset=torch.zeros(2, 4, dtype=torch.bool)), state) or "")
    assert "projects" in (native.declines(record._replace(project=torch.zeros(6, 6)), state) or "")
    lower = Cell(*(x.bfloat16() if isinstance(x, torch.Tensor) else x for x in record))
    assert "bfloat16" in (native.declines(lower, state) or "")


def test_a_second_derivative_is_refused():
    record, state = _make(rules.LSTM, 2, 3)
    record.drive.requires_grad_()
    read, _ = native.scan(record, state)
    (grad,) = torch.autograd.grad(read.square().sum(), record.drive, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_weights_that_change_in_any_way_are_seen():
    """Also through `.data`, which moves no version counter."""
    record, state = _make(rules.LSTM, 1, 1, inputs=5)
    with torch.no_grad():
        first = native.scan(record, state)[0].clone()
        record.weight.data.mul_(2)
        assert not torch.equal(native.scan(record, state)[0], first)
    assert_close(native.scan(record, state)[0], loop.scan(record, state)[0])


def test_a_trace_draws_no_number_of_the_users():
    rule = Rule("never_seen", lambda x, r, h: (torch.tanh(x[0] + r[0]), (torch.tanh(x[0] + r[0]),)), 1, 1)
    before = torch.get_rng_state()
    trace(rule)
    assert torch.equal(torch.get_rng_state(), before)


def test_compiling_is_said_once(caplog):
    def own(drive, recur, state):
        h = torch.tanh(drive[0] + recur[0] * 0.731)
        return h, (h,)

    record, state = _make(_rule(own), 2, 3)
    with caplog.at_level(logging.DEBUG, "recurra"):
        for _ in range(2):
            Scan()(record, state)
    assert len([x for x in caplog.messages if "cell-mine" in x]) <= 1


@pytest.mark.parametrize(("rule", "B", "T", "trains", "chosen"), [
    (rules.LSTM, 1, 1, False, "native"), (rules.LSTM, 64, 9, True, "native"), (rules.LSTM, 64, 9, False, "torch"),
    (rules.GRU_AFTER, 64, 9, False, "native"), (rules.GRU_AFTER, 64, 1, False, "torch"),
    (rules.ELMAN_TANH, 2, 1, True, "torch"), (rules.ELMAN_TANH, 2, 5, True, "native"),
])  # fmt: skip
def test_torchs_functions_run_where_they_are_faster(rule, B, T, trains, chosen):
    record, state = _make(rule, B, T, inputs=5)
    record.weight.requires_grad_(trains)
    assert name_of(choose(record, state)) == chosen
    with use("native"):
        assert name_of(choose(record, state)) == "native"
    # nothing of torch's knows a clock, or a drive that is there
    clocked = record._replace(reset=torch.zeros(B, T, dtype=torch.bool))
    assert name_of(choose(clocked, state)) == name_of(choose(record.driven(), state)) == "native"
