"""A random record of every kind: what the engine tests run over. A new engine adds its factories to RECORDS."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from recurra.ops import (
    LOG_SUM,
    MAX_PLUS,
    MIN_MAX,
    SUM,
    Address,
    Block,
    Cell,
    Delta,
    Descent,
    Diag,
    DiagonalPlusLowRank,
    LeastSquares,
    LinearSystem,
    Linked,
    Liquid,
    LowRank,
    Machine,
    Net,
    Outer,
    Projection,
    Rule,
    Selective,
    Settle,
    ShortConv,
    StateSpace,
    Synapse,
    Tape,
)
from recurra.ops.cell import rules
from recurra.ops.descent import retention
from recurra.ops.projection import rules as projection_rules

B, H, K, V, D, N = 2, 3, 5, 4, 6, 3


def _normal(*shape, dtype, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64).to(dtype)


def _log_decay(*shape, dtype):
    """Decays near 1 and near 0 together."""
    return -torch.exp(3 * torch.randn(*shape, dtype=torch.float64) - 2).clamp(max=50).to(dtype)


def _diag(ring=SUM, constant=False, complex_=False):
    def make(T, dtype):
        shape = (D,) if constant else (B, T, D)
        drive, state = _normal(B, T, D, dtype=dtype), _normal(B, D, dtype=dtype)
        decay = _log_decay(*shape, dtype=dtype).exp() if ring is SUM else _normal(*shape, dtype=dtype)
        if ring in (MAX_PLUS, LOG_SUM):
            decay = _log_decay(*shape, dtype=dtype)
        if complex_:
            turn = torch.polar(torch.ones_like(decay), 3 * torch.rand_like(decay))
            decay = decay * turn
            drive, state = torch.complex(drive, drive.flip(0)), torch.complex(state, state.flip(0))
        return Diag(decay, drive, ring), state

    return make


def _outer(decay, before=False, bonus=False):
    def make(T, dtype):
        q, k, v = (_normal(B, T, H, n, dtype=dtype) for n in (K, K, V))
        g = {"none": None, "head": _log_decay(B, T, H, dtype=dtype), "key": _log_decay(B, T, H, K, dtype=dtype)}[decay]
        u = _normal(H, K, dtype=dtype) if bonus else None
        return Outer(q, k, v, g, before, u), _normal(B, H, K, V, dtype=dtype)

    return make


def _delta(decay, low_rank=False):
    def make(T, dtype):
        q, k, v = (_normal(B, T, H, n, dtype=dtype) for n in (K, K, V))
        k = F.normalize(k, dim=-1)
        g = {"none": None, "head": _log_decay(B, T, H, dtype=dtype), "key": _log_decay(B, T, H, K, dtype=dtype)}[decay]
        strength = torch.rand(B, T, H, 1, dtype=torch.float64).to(dtype)
        state = _normal(B, H, K, V, dtype=dtype)
        if low_rank:
            return LowRank(q, k, v, -k, 0.5 * strength * k, g), state
        return Delta(q, k, v, strength * k, g), state

    return make


def _gates(drive, recur, state, peep):
    """A cell of two gates and two states, unlike any published one."""
    _, before = state
    keep = torch.sigmoid(drive[0] + recur[0] + peep * before)
    c = keep * before + (1 - keep) * torch.tanh(drive[1] + recur[1])
    h = torch.tanh(c) + 0.1 * before
    return h, (h, c)


def _plain(drive, recur, state):
    h = torch.tanh(drive[0] + sum(recur))
    return h, (h,)


def _own(drive, recur, state):
    h = torch.tanh(drive[0] + torch.tanh(state[0] @ recur[0].T) @ recur[0])
    return h, (h,)


def _cell(rule, weight, project=False):
    def make(T, dtype):
        drive = _normal(B, T, rule.drive * D, dtype=dtype)
        width = 2 if project else D
        w = None if weight is None else _normal(*weight, dtype=dtype, scale=0.4)
        if project:
            w = w[..., :width].contiguous()
        params = _normal(rule.params, D, dtype=dtype) if rule.params else None
        p = _normal(width, D, dtype=dtype, scale=0.4) if project else None
        state = (_normal(B, width, dtype=dtype), *(_normal(B, D, dtype=dtype) for _ in range(rule.state - 1)))
        return Cell(rule, drive, w, params, p), state

    return make


def _fused(rule, project=False):
    """A cell that torch fuses: it makes W x + b itself, from x of a width of its own."""

    def make(T, dtype):
        gates, read, inputs = rule.drive, 2 if project else D, D - 1
        w, r = (_normal(*s, dtype=dtype, scale=0.4) for s in ((gates * D, inputs), (gates, 1, D, read)))
        bias = _normal(gates * D, dtype=dtype)
        params = _normal(rule.params, D, dtype=dtype) if rule.params else None
        p = _normal(read, D, dtype=dtype, scale=0.4) if project else None
        state = (_normal(B, read, dtype=dtype), *(_normal(B, D, dtype=dtype) for _ in range(rule.state - 1)))
        x = _normal(B, T, inputs, dtype=dtype)
        return Cell(rule, x, r, params, p, input_weight=w, bias=bias), state

    return make


def _conv(bias, silu, taps=4):
    def make(T, dtype):
        b = _normal(D, dtype=dtype) if bias else None
        x, weight, past = (_normal(*shape, dtype=dtype) for shape in ((B, T, D), (D, taps), (B, taps - 1, D)))
        return ShortConv(x, weight, b, silu), past

    return make


def _address(T, dtype):
    q, k, w = (_normal(B, T, H, n, dtype=dtype) for n in (V, V, K))
    return Address(q, k, w, _log_decay(B, T, H, K, dtype=dtype)), _normal(B, H, K, V, dtype=dtype)


def _selective(T, dtype):
    x, b, c = _normal(B, T, D, dtype=dtype), _normal(B, T, N, dtype=dtype), _normal(B, T, N, dtype=dtype)
    step = F.softplus(3 * _normal(B, T, D, dtype=dtype))
    return Selective(x, step, -_normal(D, N, dtype=dtype).exp(), b, c), _normal(B, D, N, dtype=dtype)


def _liquid(complex_):
    def make(T, dtype):
        size = _log_decay(D, N, dtype=dtype).exp()
        (a, b, c), state = _normal(3, D, N, dtype=dtype), _normal(B, D, N, dtype=dtype)
        if complex_:
            turn, state = torch.polar(torch.ones_like(a), 3 * a), torch.complex(state, state.flip(0))
            a, b, c = size * turn, torch.complex(b, c), torch.complex(c, b)
        else:
            a = size
        # what moves with the input stays within what decays
        limit = (0.1 + 0.9 * torch.rand(D, N, dtype=torch.float64).to(dtype)) / b.abs()
        return Liquid(_normal(B, T, D, dtype=dtype), a, (1 - size) * b, limit, c), state

    return make


def _state_space(complex_):
    def make(T, dtype):
        x, read, state = (_normal(*shape, dtype=dtype) for shape in ((B, T, D), (D, N), (B, D, N)))
        a = _log_decay(D, N, dtype=dtype)
        if complex_:
            a = torch.complex(a, 3 * torch.randn_like(a))
            read, state = torch.complex(read, read.flip(0)), torch.complex(state, state.flip(0))
        return StateSpace(x, a, read, _normal(D, dtype=dtype) if complex_ else None), state

    return make


def _synapse(T, dtype):
    slope, offset, push = _normal(3, D + N, N, dtype=dtype)
    conductance = torch.rand(D + N, N, dtype=torch.float64).to(dtype)
    leak, capacitance = 0.1 + torch.rand(2, N, dtype=torch.float64).to(dtype)
    span = 0.1 + torch.rand(B, T, dtype=torch.float64).to(dtype)
    own = _normal(N, dtype=dtype), leak, capacitance
    record = Synapse(_normal(B, T, D, dtype=dtype), span, 3 * slope, offset, push, conductance, *own, 2)
    return record, _normal(B, N, dtype=dtype)


def _settle(T, dtype):
    state = _normal(B, D, dtype=dtype), _normal(B, D * D, dtype=dtype, scale=0.3)
    recurrent, norm = _normal(D, D, dtype=dtype, scale=0.3), _normal(2, D, dtype=dtype)
    return Settle(_normal(B, T, D, dtype=dtype), recurrent, norm, 0.8, 0.4, 2), state


def _least_squares(decay):
    def make(T, dtype):
        q, k, v = (_normal(B, T, H, n, dtype=dtype) for n in (K, K, V))
        write, ridge = (torch.rand(*s, dtype=torch.float64).to(dtype) for s in ((B, T, H), (H, K)))
        past = _normal(B, H, K, K + V, dtype=dtype)
        state = torch.cat([past @ past.mT, past[..., K:]], -1)
        g = _log_decay(B, T, H, dtype=dtype) if decay else None
        return LeastSquares(q, F.normalize(k, dim=-1), v, write, 0.25 + ridge, g), state

    return make


def _turn(*shape, dtype):
    """Square matrices that turn and shrink, some of their directions hardly and some nearly to nothing."""
    turn = torch.linalg.qr(torch.randn(*shape, shape[-1], dtype=torch.float64))[0].to(dtype)
    return turn * _log_decay(*shape, dtype=dtype).exp()[..., None]


def _block(constant):
    def make(T, dtype):
        matrix = _turn(*(() if constant else (B, T)), H, N, dtype=dtype)
        return Block(matrix, _normal(B, T, H, N, dtype=dtype)), _normal(B, H, N, dtype=dtype)

    return make


def _linear_system(T, dtype):
    write, read = _normal(H, N, dtype=dtype), _normal(H, 2, N, dtype=dtype)
    x, state = _normal(B, T, H, dtype=dtype), _normal(B, H, N, dtype=dtype)
    return LinearSystem(x, _turn(H, N, dtype=dtype), write, read), state


def _dplr(T, dtype):
    diagonal = torch.complex(_log_decay(H, N, dtype=dtype), 3 * _normal(H, N, dtype=dtype))
    low, write, read, state = (
        torch.complex(*_normal(2, *shape, dtype=dtype)) for shape in ((H, N), (H, N), (H, N), (B, H, N))
    )
    step = 0.1 + torch.rand(H, dtype=torch.float64).to(dtype)
    return DiagonalPlusLowRank(_normal(B, T, H, dtype=dtype), step, diagonal, low, write, read), state


def _own_rule(drive, hidden):
    gate, new = drive.chunk(2, -1)
    return hidden + torch.sigmoid(gate) * (torch.sin(new) - hidden)


def _projection(rule, gates, small=False):
    """`small`: one signal, no products of h with itself and of what feeds with m."""

    def make(T, dtype):
        M = 1 if small else 2
        feed, drive = _normal(B, T, M, dtype=dtype), _normal(B, T, gates * K, dtype=dtype)
        span = 0.1 + torch.rand(B, T, dtype=torch.float64).to(dtype)
        generator = _normal(N, N, dtype=dtype, scale=0.2) - torch.eye(N, dtype=dtype)
        shapes = ((M, K), (M, M * N), (gates * K, K), (gates * K, M * N))
        hidden, memory, recur, last = (_normal(*shape, dtype=dtype, scale=0.3) for shape in shapes)
        weights = (hidden, None, None, last) if small else (hidden, memory, recur, last)
        state = _normal(B, K, dtype=dtype), _normal(B, M, N, dtype=dtype)
        return Projection(feed, drive, span, generator, rule, *weights), state

    return make


def _machine(memory):
    """Two units, and a state as runs leave it: whoever looks at slots does so with a weight of at most one."""

    def make(T, dtype):
        says, hears = memory.interface, 2 + memory.read
        weights = (_normal(*shape, dtype=dtype, scale=0.4) for shape in ((8, 3), (8,), (8, hears)))
        spoken = (_normal(*shape, dtype=dtype, scale=0.6) for shape in ((says, 2), (says,)))
        found = (_normal(B, size, dtype=dtype, scale=0.5) for size in (2, 2, memory.read, memory.state[0]))
        fractions = (torch.rand(B, size, dtype=torch.float64).to(dtype) / size for size in memory.state[1:])
        return Machine(memory, _normal(B, T, 3, dtype=dtype), *weights, *spoken), (*found, *fractions)

    return make


def _descent(net, chunk=7, momentum=False, scale=False, huber=False, **more):
    """One head and mild steps: a net in training tells its errors apart, whatever computes them."""

    def make(T, dtype):
        sizes, gates = net.sizes, (B, T, 1)
        q, k = (F.normalize(_normal(B, T, 1, sizes[0], dtype=dtype), dim=-1) for _ in range(2))
        v = _normal(B, T, 1, sizes[-1], dtype=dtype)
        start, initial, moved = (_normal(*s, net.size, dtype=dtype, scale=0.5) for s in ((B, 1), (1,), (B, 1)))
        # the rows stand at different places of their chunks
        state = start, 0.1 * moved, 0.5 + torch.rand(B, 1).to(dtype), torch.tensor([0.0, 3.0 % chunk]).to(dtype)
        rate, turn, forget = (torch.rand(*gates, dtype=torch.float64).to(dtype) for _ in range(3))
        record = Descent(
            q, k, v, 0.1 * rate, initial, net, chunk, None if scale else -0.1 * forget,
            torch.log(turn) if momentum else None,
            1 + _normal(2, 1, sizes[-1], dtype=dtype, scale=0.1) if net.normalised else None,
            torch.rand(chunk, dtype=torch.float64).to(dtype) if scale else None,
            threshold=0.2 + torch.rand(gates, dtype=torch.float64).to(dtype) if huber else None,
            **more,
        )  # fmt: skip
        return record, (*state, 0.1 * moved.flip(0)) if momentum else state

    return make


# name -> make(T, dtype) -> (record, state)
RECORDS: dict[str, Callable] = {
    "diag": _diag(),
    "diag-constant": _diag(constant=True),
    "diag-complex": _diag(complex_=True),
    "diag-complex-constant": _diag(complex_=True, constant=True),
    "diag-min-max": _diag(MIN_MAX),
    "diag-max-plus": _diag(MAX_PLUS),
    "diag-log-sum": _diag(LOG_SUM),
    "outer-no-decay": _outer("none"),
    "outer-head-decay": _outer("head"),
    "outer-key-decay": _outer("key"),
    "outer-before": _outer("key", before=True),
    "outer-before-head": _outer("head", before=True),
    "outer-bonus": _outer("key", before=True, bonus=True),
    "outer-bonus-no-decay": _outer("none", before=True, bonus=True),
    "address": _address,
    "delta-no-decay": _delta("none"),
    "delta-head-decay": _delta("head"),
    "delta-key-decay": _delta("key"),
    "low-rank-no-decay": _delta("none", low_rank=True),
    "low-rank-head-decay": _delta("head", low_rank=True),
    "low-rank-key-decay": _delta("key", low_rank=True),
    "cell-dense": _cell(Rule("gates", _gates, 2, 2, 2, 1), (2, 1, D, D)),
    "cell-heads": _cell(Rule("gates", _gates, 2, 2, 2, 1), (2, 2, D // 2, D // 2)),
    "cell-diagonal": _cell(Rule("plain", _plain, 1, 1, operator="diagonal"), (1, D)),
    "cell-none": _cell(Rule("plain", _plain, 1, 0, operator="none"), None),
    "cell-own": _cell(Rule("own", _own, 1, 1, operator="own"), (D, D)),
    "cell-project": _cell(Rule("gates", _gates, 2, 2, 2, 1), (2, 1, D, D), project=True),
    "cell-lstm": _fused(rules.LSTM),
    "cell-lstm-project": _fused(rules.LSTM, project=True),
    "cell-gru": _fused(rules.GRU_AFTER),
    "cell-elman-tanh": _fused(rules.ELMAN_TANH),
    "cell-elman-relu": _fused(rules.ELMAN_RELU),
    "cell-lstm-peephole": _cell(rules.LSTM_PEEPHOLE, (4, 1, D, D)),
    "cell-gru-before": _cell(rules.GRU_BEFORE, (3, 1, D, D)),
    "conv": _conv(True, True),
    "conv-plain": _conv(False, False),
    "conv-many": _conv(True, True, 35),
    "least-squares": _least_squares(True),
    "least-squares-no-decay": _least_squares(False),
    "selective": _selective,
    "liquid": _liquid(False),
    "liquid-complex": _liquid(True),
    "state-space": _state_space(False),
    "state-space-complex": _state_space(True),
    "settle": _settle,
    "synapse": _synapse,
    "block": _block(False),
    "block-constant": _block(True),
    "state-space-dense": _linear_system,
    "state-space-low-rank": _dplr,
    "projection": _projection(_own_rule, 2),
    "projection-tanh": _projection(projection_rules.tanh, 1),
    "projection-gated": _projection(projection_rules.gated, 2, small=True),
    "machine-tape": _machine(Tape(4, 2, 1, 1)),
    "machine-linked": _machine(Linked(4, 2, 1)),
    "descent-ttt": _descent(Net((4, 3, 4), bias=True, approximate="tanh", normalised=True), scale=True),
    "descent-momentum": _descent(Net((3, 4, 2)), momentum=True),
    "descent-each-step": _descent(Net((3, 2)), chunk=1, momentum=True),
    "descent-lq": _descent(Net((3, 3, 2)), power=3.0, mirror=retention.lq(3.0)),
    "descent-kl": _descent(Net((3, 3, 2)), mirror=retention.kl()),
    "descent-elastic": _descent(Net((3, 2)), huber=True, mirror=retention.elastic(0.1)),
}
