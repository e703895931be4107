"""Silent thinking: nothing at the start, one block again and again, and the law for every number of loops.

There is no package of this model; it is held against its equations written out, and against its limits.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock, state as states
from recurra.models import MODELS, load
from recurra.models.depth_recurrent import DepthRecurrent
from recurra.tasks import make

V, T = 11, 9


def build(pattern="attention", moved=True, **more):
    model = DepthRecurrent(**({"vocabulary": V, "width": 16, "loops": 4, "pattern": pattern} | more))
    if moved:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return model.double().eval()


def tokens(rows=2, steps=T):
    return torch.randint(V, (rows, steps))


def same(one, other, **close):
    assert_close(list(states.leaves(one)), list(states.leaves(other)), **close)


@pytest.mark.parametrize("pattern", ["attention", "gla", "mamba2,lstm"])
def test_a_cut_changes_nothing(pattern):
    model, x = build(pattern), tokens()
    clock = Clock(torch.rand(2, T) < 0.2, torch.rand(2, T) < 0.8)
    whole, last = model(x, None, clock)
    state, pieces = None, []
    for start, stop in ((0, 1), (1, 5), (5, 5), (5, T)):
        y, state = model(x[:, start:stop], state, clock.cut(start, stop))
        pieces.append(y)
    pieces, valid = torch.cat(pieces, 1), clock.valid
    assert_close(pieces[valid], whole[valid])
    same(state, last)
    wanted = list(model.parameters())
    for g, h in zip(*(torch.autograd.grad(y[valid].square().sum(), wanted) for y in (whole, pieces)), strict=True):
        assert (g != 0).any()
        assert_close(h, g)


def test_a_reset_is_a_fresh_start_and_rows_do_not_touch():
    model, x = build("gated_deltanet"), tokens()
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[:, 4] = True
    y, state = model(x, None, Clock(reset))
    fresh, end = model(x[:, 4:])
    assert_close(y[:, 4:], fresh)
    same(state, end)
    assert_close(model(x)[0][1:], model(x[1:])[0])


def test_at_the_start_a_loop_is_the_identity():
    """Exactly where branches have no scale, and within the scale where they have."""
    x = tokens()
    none, little = (build("gla", moved=False, scale=scale, limit=64) for scale in (0.0, 1e-4))
    assert_close(none(x)[0], none.read(none.norm(none.embedding_norm(none.embedding(x)))))
    assert_close(none(x, none.initial_state(2, 64))[0], none(x)[0])
    h = little.embedding_norm(little.embedding(x))
    after, _ = little.think(h, 0, little.initial_state(2)[0], None)
    assert 0 < (after - h).abs().max() < 1e-3
    share = torch.sigmoid(torch.tensor(-2.0))
    assert 0.1 < share < 0.13 and (little.gate.bias == -2).all()


def test_a_loop_is_its_equations():
    model, x = build("gla"), tokens()
    h = model.embedding_norm(model.embedding(x))
    (block,) = model.blocks
    for i in range(4):
        u = h + model.marks[i]
        v = u + block.mixer_scale * block.mixer(block.mixer_norm(u))[0]
        new = v + block.mlp_scale * block.mlp(block.mlp_norm(v))
        z = torch.sigmoid(torch.cat([new, h], -1) @ model.gate.weight.T + model.gate.bias)
        h = z * new + (1 - z) * h
    assert_close(model(x)[0], model.norm(h) @ model.out.weight.T + model.out.bias)


def test_a_gate_that_is_open_makes_a_stack_of_copies():
    model, x = build("gla"), tokens()
    with torch.no_grad():
        model.gate.bias.fill_(100)
        model.marks.zero_()
    h = model.embedding_norm(model.embedding(x))
    for _ in range(4):
        h, _ = model.blocks[0](h, model.blocks[0].mixer.initial_state(2), None)
    assert_close(model(x)[0], model.read(model.norm(h)))


def test_loops_are_drawn_while_training_and_chosen_after():
    model, x = build("gla", trained=(2, 5)).train(), tokens()
    assert {len(model(x)[1]) for _ in range(40)} == {2, 3, 4, 5}
    model.eval()
    assert len(model(x)[1]) == 4
    y, state = model(x, model.initial_state(2, 7))
    assert len(state) == 7 and not torch.allclose(y, model(x)[0])
    with pytest.raises(ValueError, match="40 loops in this state, and the limit is 32"):
        model(x, model.initial_state(2, 40))


@pytest.mark.parametrize("more", [{"loops": 0}, {"loops": 33}, {"trained": (3, 2)}, {"trained": (1, 64)}])
def test_loops_that_cannot_be_are_refused(more):
    with pytest.raises(ValueError, match="at most the limit"):
        build("gla", **more)


def test_keywords_of_a_mixer_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="keywords are given for 'lstm', but the pattern 'gla' has none"):
        build("gla", mixers={"lstm": {}})


def test_save_load_and_go_on(tmp_path):
    model, x = build("gla").float(), tokens()
    model.save_pretrained(tmp_path)
    back = load(tmp_path)
    assert torch.equal(back(x)[0], model(x)[0]) and back.config == model.config
    assert MODELS["depth_recurrent"] is DepthRecurrent and DepthRecurrent.from_pretrained(tmp_path)
    _, state = model(x)
    states.save(tmp_path / "s", state, model, T)
    same(states.load(tmp_path / "s", model)[0], state, rtol=0, atol=0)
    drawn = model.generate(x, max_new_tokens=5)
    assert torch.equal(model.generate(drawn[:, :-2], max_new_tokens=2), drawn)
    assert not model.grows and build().grows


def test_it_learns_what_takes_a_thought():
    task, model = make({"task": "nested_logic", "least": 0, "most": 1}), build("gla", trained=(1, 2), scale=0.1).float()
    optimiser = torch.optim.AdamW(model.train().parameters(), 1e-2)
    losses = []
    for step in range(60):
        batch = task.batch("train", step, 32, 10, 0)
        losses.append(task.loss(model(batch.inputs)[0], batch))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
