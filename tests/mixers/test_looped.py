"""Loops in depth: once is the layer, R times is R copies of it; halting divides one among the loops; the law holds.

Halting is checked against Graves' definition written for one token at a time.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra import MIXERS, Clock, state as states
from recurra.mixers.wrap import Looped

B, T, D = 2, 13, 8


def build(name="attention", dtype=torch.float64, **more):
    looped = Looped(MIXERS[name](D), **more).to(dtype)
    with torch.no_grad():
        for p in looped.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return looped


def same(one, other, **close):
    assert_close(list(states.leaves(one)), list(states.leaves(other)), **close)


@pytest.mark.parametrize("name", ["attention", "gla", "gru", "mamba"])
def test_looped_once_is_the_layer(name):
    x = torch.randn(B, T, D, dtype=torch.float64)
    for halting in (None, 0.1):
        looped = build(name, loops=1, halting=halting)
        y, (state,) = looped(x)
        want, after = looped.mixer(x)
        assert_close(y, want, rtol=0, atol=0)
        same(state, after, rtol=0, atol=0)


def test_loops_are_as_many_layers_with_the_same_weights():
    looped = build("gla", loops=3)
    copies = [MIXERS["gla"](D).double() for _ in range(3)]
    x, h = torch.randn(B, T, D, dtype=torch.float64), 0
    for copy in copies:
        copy.load_state_dict(looped.mixer.state_dict())
        h, _ = copy(h + x)
    assert_close(looped(x)[0], h)


def graves(looped, hs, epsilon):
    """The halting of one token: its output, its weights and its cost, from its h of every loop."""
    output, weights, total = 0, [0.0] * len(hs), 0.0
    for n, h in enumerate(hs):
        p = torch.sigmoid(looped.halt(h)).item()
        if total + p >= 1 - epsilon or n == len(hs) - 1:
            weights[n] = 1 - total
            return output + (1 - total) * h, weights, n + 1 + 1 - total
        weights[n], total, output = p, total + p, output + p * h


def test_halting_is_that_of_its_paper():
    looped = build("gru", loops=5, halting=0.2)
    with torch.no_grad():
        looped.halt.weight.mul_(8)
    x = torch.randn(3, T, D, dtype=torch.float64)
    thought = looped.think(x)
    hs, h, running = [], torch.zeros_like(x), torch.ones(3, T, dtype=torch.bool)
    for loop in range(5):
        h = torch.where(running[..., None], looped.mixer(h + x)[0], h)
        running = running & (thought.weights[..., : loop + 1].sum(-1) < 1 - 1e-9)
        hs.append(h)
    seen = set()
    for b in range(3):
        for t in range(T):
            output, weights, cost = graves(looped, [h[b, t] for h in hs], 0.2)
            assert_close(thought.output[b, t], output)
            assert_close(thought.weights[b, t], torch.tensor(weights, dtype=torch.float64))
            assert_close(thought.cost[b, t].item(), cost)
            seen.add(sum(w > 0 for w in weights))
    assert len(seen) > 2, "tokens differ in how long they think"


def test_weights_sum_to_one_and_whoever_halts_at_once_pays_least():
    looped = build(loops=4, halting=0.01)
    x = torch.randn(B, T, D, dtype=torch.float64)
    assert_close(looped.think(x).weights.sum(-1), torch.ones(B, T, dtype=torch.float64))
    with torch.no_grad():
        looped.halt.bias.fill_(50)
    eager = looped.think(x)
    assert_close(eager.output, looped.mixer(x)[0])
    assert_close(eager.cost, torch.full((B, T), 2.0, dtype=torch.float64))
    with torch.no_grad():
        looped.halt.bias.fill_(-50)
    stubborn, plain = looped.think(x), Looped(looped.mixer, loops=4)
    assert_close(stubborn.output, plain(x)[0])
    assert_close(stubborn.cost, torch.full((B, T), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("name", ["attention", "gla", "lstm"])
@pytest.mark.parametrize("halting", [None, 0.3])
@pytest.mark.parametrize("cuts", [[4], [1, 1, 6], list(range(1, T))])
def test_a_cut_changes_nothing(name, halting, cuts):
    looped = build(name, loops=3, halting=halting)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(B, T, D, dtype=torch.float64)
    clock = Clock(torch.rand(B, T) < 0.2, torch.rand(B, T) < 0.8)
    wanted = [x, *looped.parameters()]

    def grads(y):
        return torch.autograd.grad((y * weight).sum(), wanted)

    whole, last = looped(x, None, clock)
    state, pieces, costs = None, [], []
    for start, stop in zip([0, *cuts], [*cuts, T], strict=True):
        thought = looped.think(x[:, start:stop], state, clock.cut(start, stop))
        pieces.append(thought.output)
        costs.append(thought.cost)
        state = thought.state
    assert_close(torch.cat(pieces, 1), whole)
    assert_close(torch.cat(costs, 1), looped.think(x, None, clock).cost)
    same(state, last)
    for g, h in zip(grads(whole), grads(torch.cat(pieces, 1)), strict=True):
        assert (g != 0).any()
        assert_close(h, g)


@pytest.mark.parametrize("halting", [None, 0.3])
def test_resets_gaps_and_rows(halting):
    looped = build("gated_deltanet", loops=3, halting=halting)
    x = torch.randn(B, T, D, dtype=torch.float64)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 5] = True
    both, last = looped(x, None, Clock(reset))
    fresh, end = looped(x[:, 5:])
    assert_close(both[:, 5:], fresh)
    same(last, end)
    valid = torch.rand(B, T) < 0.6
    thought = looped.think(x, None, Clock(None, valid))
    assert (thought.output[~valid] == 0).all() and (thought.cost[~valid] == 0).all()
    for row in range(B):
        alone, end = looped(x[row : row + 1, valid[row]])
        assert_close(thought.output[row, valid[row]], alone[0])
        same(states.rows(thought.state, [row]), end)
    _, state = looped(x)
    none, after = looped(x[:, :0], state)
    assert none.shape == (B, 0, D)
    same(after, state, rtol=0, atol=0)


def test_time_is_the_mixers():
    looped = build("ltc", loops=2)
    assert looped.timed and not looped.grows and build().grows
    x, dt = torch.randn(B, T, D, dtype=torch.float64), 0.5 + torch.rand(B, T, dtype=torch.float64)
    assert not torch.allclose(looped(x, None, Clock(dt=dt))[0], looped(x)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_and_long_gradients(dtype):
    looped = build("gla", dtype, loops=3, halting=0.1)
    x = torch.randn(1, 512, D, dtype=dtype, requires_grad=True)
    y, state = looped(x)
    assert y.dtype == dtype and torch.isfinite(y).all()
    for before, after in zip(states.leaves(looped.initial_state(1)), states.leaves(state), strict=True):
        assert before.dtype == after.dtype == torch.float32 and before.shape == after.shape
    for grad in torch.autograd.grad(y.float().square().mean(), [x, *looped.parameters()]):
        assert torch.isfinite(grad).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="loops is 0"):
        build(loops=0)
    with pytest.raises(ValueError, match=r"halting is 1\.0: it must lie between 0 and 1"):
        build(halting=1.0)
