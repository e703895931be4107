"""Depth that is chosen when the model is used: the law, loops as copies, slots, exits, and the wave of tokens.

There is no package of this model; it is held against untied copies of its own blocks, and its samplers against greedy.
"""

import copy

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock, state as states
from recurra.models import MODELS, load
from recurra.models.diffusion_forcing import sample
from recurra.models.early_exit import RULES, next_token
from recurra.models.recurrent_depth_lm import RecurrentDepthLM

V, T = 11, 9


def build(pattern="attention", **more):
    model = RecurrentDepthLM(**({"vocabulary": V, "width": 16, "loops": 4, "pattern": pattern, "core": 1} | more))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.double().eval()


def tokens(rows=2, steps=T):
    return torch.randint(V, (rows, steps))


def same(one, other, **close):
    assert_close(list(states.leaves(one)), list(states.leaves(other)), **close)


@pytest.mark.parametrize(
    ("pattern", "slots"), [("attention", None), ("attention", 1), ("mamba2,sliding_window", None), ("gla", 3)]
)
def test_a_cut_changes_nothing(pattern, slots):
    model, x = build(pattern, core=2, loops=4), tokens()
    clock = Clock(torch.rand(2, T) < 0.15, torch.rand(2, T) < 0.85)
    begin = model.initial_state(2, slots)
    whole, last = model(x, begin, clock)
    state, pieces = begin, []
    for start, stop in ((0, 1), (1, 5), (5, 5), (5, T)):
        y, state = model(x[:, start:stop], state, clock.cut(start, stop))
        pieces.append(y)
    pieces, valid = torch.cat(pieces, 1), clock.valid
    assert_close(pieces[valid], whole[valid])
    same(state, last)


def test_loops_are_copies_of_the_core():
    model, x = build("gla", core=2), tokens()
    given, _ = model.enter(x, model.initial_state(2)[0])
    s = torch.zeros_like(given)
    for _ in range(4):
        blocks, s = copy.deepcopy(model.core), torch.cat([s, given], -1) @ model.adapter.weight.T
        for block in blocks:
            mixed, _ = block.mixer(block.mixer_norm(s))
            s = block.mixed_norm(s + mixed)
            s = block.sum_norm(s + block.mlp(block.mlp_norm(s)))
    features, _ = model.leave(s, model.initial_state(2)[2])
    assert_close(model(x)[0], model.read(features))


def test_a_slot_for_every_loop_is_the_default_and_more_loops_share():
    model, x = build("gla"), tokens()
    assert_close(model(x, model.initial_state(2, 4))[0], model(x)[0])
    with_six, state = model(x, None, None, 6)
    assert len(state[1]) == 6 and not torch.allclose(with_six, model(x)[0])
    assert_close(model(x[:, :1], model.initial_state(2, 1))[0], model(x[:, :1])[0])
    assert not torch.allclose(model(x, model.initial_state(2, 1))[0], model(x)[0])
    with pytest.raises(ValueError, match="slots for 4 loops, and 2 are asked for"):
        model(x, model.initial_state(2), None, 2)
    with pytest.raises(ValueError, match="loops is 0"):
        model(x, None, None, 0)


def test_a_reset_is_a_fresh_start_and_rows_do_not_touch():
    model, x = build("gated_deltanet"), tokens()
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[:, 4] = True
    for slots in (None, 1):
        y, state = model(x, model.initial_state(2, slots), Clock(reset))
        fresh, end = model(x[:, 4:], model.initial_state(2, slots))
        assert_close(y[:, 4:], fresh)
        same(state, end)
        alone, end = model(x[1:], model.initial_state(1, slots))
        assert_close(model(x, model.initial_state(2, slots))[0][1:], alone)


def test_training_draws_loops_and_latents_and_has_gradients_of_the_last_loops():
    model, x = build("gla", loops=6, backward=2).train(), tokens()
    counts = torch.tensor([model._drawn() for _ in range(2000)]).double()
    assert counts.min() >= 1 and abs(counts.mean() - 7) < 0.4
    assert 2 < counts.std() < 6
    one, two = model(x)[0], model(x)[0]
    assert not torch.equal(one, two)
    loss = model(x, None, None, 6)[0].square().mean()
    assert all(p.grad is None and (g != 0).any() for p, g in _grads(model, loss))
    # what the first loops did has no part in the gradient: as if the latents had come from elsewhere
    begin = 0.1 * torch.randn(2, T, 16, dtype=torch.float64)
    short = _grads(model, model(x, None, None, 6, begin)[0].square().mean())
    model.backward = 6
    full = _grads(model, model(x, None, None, 6, begin)[0].square().mean())
    assert any(not torch.allclose(g, h) for (_, g), (_, h) in zip(short, full, strict=True))


def _grads(model, loss):
    parameters = list(model.parameters())
    return list(zip(parameters, torch.autograd.grad(loss, parameters), strict=True))


def test_without_training_nothing_is_drawn_and_the_beginning_can_be_given():
    model, x = build("gla"), tokens()
    assert torch.equal(model(x)[0], model(x)[0])
    assert torch.equal(model(x, None, None, None, torch.zeros(2, T, 16, dtype=torch.float64))[0], model(x)[0])
    assert not torch.allclose(model(x, None, None, None, torch.randn(2, T, 16, dtype=torch.float64))[0], model(x)[0])


def test_save_and_load(tmp_path):
    model, x = build("gla").float(), tokens()
    model.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path)(x)[0], model(x)[0])
    _, state = model(x)
    states.save(tmp_path / "s", state, model, T)
    same(states.load(tmp_path / "s", model)[0], state, rtol=0, atol=0)
    assert MODELS["recurrent_depth_lm"] is RecurrentDepthLM and RecurrentDepthLM.from_pretrained(tmp_path)
    assert not model.grows and build().grows


@pytest.mark.parametrize(("rule", "slots"), [("kl", 1), ("kl", 4), ("latent", 4), ("argmax", 1)])
def test_never_still_is_all_loops(rule, slots):
    model, x = build("gla"), tokens(3)
    begin = model.initial_state(3, slots)
    _, state = model(x[:, :-1], begin)
    want, after = model(x[:, -1:], state)
    ended = next_token(model, x[:, -1:], state, rule=rule, threshold=-1.0)
    assert (ended.loops == 4).all()
    assert_close(ended.logits, want[:, 0])
    same(ended.state, after)


@pytest.mark.parametrize("rule", RULES)
def test_every_row_stops_by_itself(rule):
    model, x = build("attention", loops=12), tokens(4)
    _, state = model(x[:, :-1], model.initial_state(4, 1))
    threshold = {"kl": 1e-6, "latent": 0.05, "cosine": 1e-3, "entropy": 1e-3, "argmax": 0.5}[rule]
    ended = next_token(model, x[:, -1:], state, rule=rule, threshold=threshold)
    for row in range(4):
        own = states.rows(state, row)
        alone = next_token(model, x[row : row + 1, -1:], own, rule=rule, threshold=threshold)
        assert alone.loops == ended.loops[row]
        assert_close(alone.logits, ended.logits[row : row + 1])
        same(alone.state, states.rows(ended.state, row))
        # a row that stopped is as one that was asked for so many loops
        want, after = model(x[row : row + 1, -1:], own, None, int(alone.loops))
        assert_close(alone.logits, want[:, 0])
        same(alone.state, after)
    assert next_token(model, x[:, -1:], state, rule=rule, threshold=1e9).loops.max() == RULES[rule][2] + 1


def test_rules_are_refused_by_name():
    model = build("gla")
    with pytest.raises(ValueError, match="no rule 'norm': it must be one of kl, latent"):
        next_token(model, tokens(1, 1), rule="norm")
    with pytest.raises(ValueError, match="there are 2 tokens in a row"):
        next_token(model, tokens(1, 2))


@pytest.mark.parametrize(("pattern", "prompt"), [("attention", 1), ("attention", 6), ("gla", 6)])
def test_a_wave_of_one_is_greedy(pattern, prompt):
    model, x = build(pattern, core=2), tokens(1, prompt)
    with torch.no_grad():
        model.out.weight.mul_(5)
    want = model.generate(x, max_new_tokens=12, state=model.initial_state(1, slots=1))
    drawn = sample(model, x, max_new_tokens=12, inner=4, wavefront=1, noise=0.0)
    assert torch.equal(drawn.tokens, want)
    assert drawn.passes == 12 * 5
    # in rounds of two, and refined until the model's own number of loops, still the same
    drawn = sample(model, x, max_new_tokens=12, inner=2, wavefront=1, noise=0.0, memory=0.0, threshold=0.0)
    assert torch.equal(drawn.tokens, want)


def test_a_wide_wave_goes_ahead_and_ends():
    model, x = build("gla", loops=8), tokens(1, 5)
    for noise in (0.0, 0.5):
        drawn = sample(model, x, max_new_tokens=15, inner=2, wavefront=6, noise=noise, threshold=0.2)
        assert drawn.tokens.shape == (1, 20) and torch.equal(drawn.tokens[:, :5], x)
        assert torch.equal(
            drawn.tokens, sample(model, x, max_new_tokens=15, inner=2, wavefront=6, noise=noise, threshold=0.2).tokens
        )


def test_a_still_model_gives_greedys_tokens_from_any_wave():
    """Where loops converge at once and do not look back, guesses are right, however wide the wave."""
    model, x = build("gla", loops=3), tokens(1, 5)
    with torch.no_grad():
        model.adapter.weight[:, :16] = 0
        for block in model.core:
            block.mixer.out.weight.zero_()
    want = model.generate(x, max_new_tokens=10, state=model.initial_state(1, slots=1))
    drawn = sample(model, x, max_new_tokens=10, inner=1, wavefront=4, noise=0.0, memory=0.0, threshold=1e-9)
    assert torch.equal(drawn.tokens, want)


def test_waves_that_cannot_be_are_refused():
    model = build("gla")
    with pytest.raises(ValueError, match="a wave takes one, of at least one token"):
        sample(model, tokens(2, 3))
    with pytest.raises(ValueError, match="a wave takes one, of at least one token"):
        sample(model, tokens(1, 0))
    with pytest.raises(ValueError, match="wavefront 0"):
        sample(model, tokens(1, 3), wavefront=0)
    with pytest.raises(ValueError, match="core is 0: it must be at least 1"):
        build(core=0)
    with pytest.raises(ValueError, match="keywords are given for 'lstm', but the pattern 'gla' has none"):
        build("gla", mixers={"lstm": {}})
