"""Programs over layers: the whole stack is the model, loops are copies, and the search finds what brute force finds."""

import copy
import random
import types

import pytest
import torch
from torch.testing import assert_close

from recurra.lens import cola
from recurra.lens.cola import agreement, likelihood, run, search
from recurra.models import MODELS

DEPTH = 3


def build(pattern="gla,attention"):
    model = MODELS["language_model"](vocabulary=11, width=16, depth=DEPTH, pattern=pattern, tied=False).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def text(rows=1):
    return torch.randint(11, (rows, 12))


def programs(layer=0):
    """Every program over three layers whose pairs and layers run at most twice, built from the top down."""
    if layer == DEPTH:
        return {()}
    rest = programs(layer + 1)
    found = {some + more for more in rest for some in ((), (layer,), (layer, layer))}
    if layer + 2 <= DEPTH:
        found |= {(layer, layer + 1, layer, layer + 1, *more) for more in programs(layer + 2)}
    return found


@pytest.mark.parametrize("pattern", ["gla,attention", "rwkv7", "mamba2,lstm"])
def test_the_whole_stack_is_the_model(pattern):
    model, x = build(pattern), text(2)
    with torch.no_grad():
        assert_close(run(model, x, tuple(range(DEPTH))), model(x)[0], rtol=0, atol=0)


def test_a_program_is_a_stack_of_copies():
    model, x = build(), text(2)
    other = copy.deepcopy(model)
    for program in ((), (0, 2), (1, 1, 2, 2, 0), (0, 1, 0, 1, 2)):
        other.backbone.blocks = torch.nn.ModuleList(copy.deepcopy(model.backbone.blocks[i]) for i in program)
        assert_close(run(model, x, program), other(x)[0])
    with pytest.raises(ValueError, match="layers are numbered from 0 to 2"):
        run(model, x, (0, 3))


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_a_full_budget_finds_what_brute_force_finds(penalty):
    model, x = build(), text()
    every = {p: likelihood(run(model, x, p), x) - penalty * len(p) / DEPTH for p in programs()}
    assert len(every) == 33
    found = search(model, x, budget=33, penalty=penalty)
    assert found[-1].program == max(every, key=every.__getitem__)
    for one in found:
        assert_close(one.reward, every[one.program])
        # nothing that is as short does better
        assert one.reward == max(got for program, got in every.items() if len(program) <= len(one.program))
    assert [len(one.program) for one in found] == sorted({len(one.program) for one in found})


def test_a_small_budget_is_never_worse_than_the_model_and_follows_from_the_seed():
    model, x = build(), text()
    with torch.no_grad():
        whole = likelihood(model(x)[0], x)
    for seed in range(4):
        assert search(model, x, budget=5, seed=seed)[-1].reward >= whole
    assert search(model, x, budget=10, seed=3) == search(model, x, budget=10, seed=3)


def test_where_layers_count_each_for_itself_the_search_beats_as_many_guesses(monkeypatch):
    """Eight layers, each with a number of times that is best: 20,000 programs, of which 60 are tried."""
    monkeypatch.setattr(cola, "run", lambda model, tokens, program: program)
    best = (0, 2, 1, 1, 0, 2, 1, 0)

    def reward(program, tokens):
        return -float(sum(abs(program.count(layer) - times) for layer, times in enumerate(best)))

    stack = types.SimpleNamespace(backbone=types.SimpleNamespace(stack=[None] * 8), training=False)
    found = [search(stack, text(), reward=reward, budget=60, seed=seed)[-1].reward for seed in range(5)]
    draw = random.Random(0)
    guesses = []
    for _ in range(5):
        tried = [[draw.choice((0, 1, 2)) for _ in best] for _ in range(60)]
        guesses.append(max(-sum(abs(a - b) for a, b in zip(some, best, strict=True)) for some in tried))
    assert sum(found) > sum(guesses)


def test_a_layer_that_harms_is_skipped():
    model, x = build(), text()
    with torch.no_grad():
        model.out.weight.mul_(3)
    # a text that the stack without layer 1 foretells
    for t in range(1, 12):
        x[0, t] = run(model, x, (0, 2))[0, t - 1].argmax()
    assert search(model, x, budget=33)[-1].program == (0, 2)


def test_agreement_is_zero_for_the_whole_and_nothing_is_nearer():
    model, x = build(), text()
    reward = agreement(model(x)[0])
    found = search(model, x, reward=reward, budget=33)
    assert found[-1].program == (0, 1, 2) and abs(found[-1].reward) < 1e-6
    assert all(one.reward < 0 for one in found[:-1])


def test_looking_changes_nothing():
    model, x = build(), text()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    search(model, x, budget=10)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.training
    with pytest.raises(ValueError, match="the model is training"):
        search(model.train(), x)
    with pytest.raises(ValueError, match="budget is 0"):
        search(model.eval(), x, budget=0)
