"""A mixture of experts against what it means: every expert on every step, and the router's weights.

Three derivations agree: a loop over steps, a loop over experts with most weights zero, and transformers' own layers of
Jamba and Granite with the weights copied across. The balance's gradient is held against the loss that it is of.
"""

import pytest
import torch
from oracles.stored import numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import Clock
from recurra.models import LanguageModel
from recurra.models.backbone import Backbone, GatedMLP
from recurra.parts.experts import Experts, imbalance, load


def make(width=8, **keywords):
    torch.manual_seed(0)
    return Experts(width, **keywords).double()


def dense(layer, x):
    """Every expert on every step, weighted by zeros for those not chosen; shared ones by ones."""
    p = torch.softmax(x @ layer.router.weight.T, -1)
    least = p.topk(layer.top, -1).values[..., -1:]
    weight = torch.where(p >= least, p, 0)
    weight = weight / weight.sum(-1, keepdim=True) if layer.normalised else weight
    weight = torch.cat([weight, torch.ones_like(weight[..., :1]).expand(*weight.shape[:-1], layer.shared)], -1)
    y = torch.zeros_like(x)
    for e in range(layer.experts + layer.shared):
        gate, value = (x @ layer.inside.weight[e].T).chunk(2, -1)
        y = y + weight[..., e : e + 1] * ((F.silu(gate) * value) @ layer.out.weight[e].T)
    return y


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("experts", "top", "shared"), [(5, 2, 0), (6, 3, 2), (3, 3, 1), (1, 1, 0), (40, 2, 0)])
def test_it_is_a_dense_loop_over_experts(experts, top, shared, normalised):
    layer = make(experts=experts, top=top, shared=shared, normalised=normalised)
    x = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    weights = [x, *layer.parameters()]
    ours, plain = layer(x), dense(layer, x)
    assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    into = torch.randn_like(x)
    for mine, theirs in zip(
        torch.autograd.grad(ours, weights, into), torch.autograd.grad(plain, weights, into), strict=True
    ):
        assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_rows_do_not_touch_and_none_is_fine():
    layer = make(shared=1)
    x = torch.randn(3, 11, 8, dtype=torch.float64)
    one_by_one = torch.stack([torch.stack([layer(step) for step in row]) for row in x])
    assert_close(layer(x), one_by_one, rtol=1e-12, atol=1e-12)
    assert layer(x[:, :0]).shape == (3, 0, 8)


def test_one_expert_is_a_gated_mlp():
    layer, mlp = make(experts=1, top=1, hidden=12), GatedMLP(8, 12).double()
    mlp.inside.weight.data, mlp.out.weight.data = layer.inside.weight.data[0], layer.out.weight.data[0]
    x = torch.randn(5, 8, dtype=torch.float64)
    assert_close(layer(x), mlp(x), rtol=1e-12, atol=1e-12)


def test_two_shared_experts_are_one_of_twice_the_size():
    layer = make(experts=2, top=1, hidden=6, shared=2)
    layer.out.weight.data[:2] = 0
    mlp, (first, second) = GatedMLP(8, 12).double(), (map_.unbind(0) for map_ in layer.inside.weight[2:].chunk(2))
    parts = [part.chunk(2) for part in (*first, *second)]
    mlp.inside.weight.data = torch.cat([half[side] for side in (0, 1) for half in parts]).detach()
    mlp.out.weight.data = torch.cat(layer.out.weight[2:].unbind(0), -1).detach()
    x = torch.randn(5, 8, dtype=torch.float64)
    assert_close(layer(x), mlp(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "top", "normalised"), [("jamba", 2, False), ("granite", 3, True)])
def test_transformers_choose_so(name, top, normalised):
    """Numbers by `tests/oracles/make_experts.py`; their softmax is float32 whatever x is."""
    weights, stored = numbers("experts", f"{name}.")
    layer = make(experts=5, top=top, hidden=12, normalised=normalised)
    layer.load_state_dict(weights)
    assert_close(layer(stored["x"]), stored["y"], rtol=1e-5, atol=1e-5)


def test_the_balance_pulls_as_its_loss_does():
    layer, plain = make(experts=5, balance=0.3).train(), make(experts=5).train()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    layer(x).square().mean().backward()
    probability, chosen = plain.route(x.flatten(0, 1))
    (plain(x).square().mean() + 0.3 * imbalance(probability, chosen)).backward()
    for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)


def test_in_evaluation_nothing_pulls():
    layer, plain = make(balance=0.3).eval(), make().eval()
    x = torch.randn(4, 8, dtype=torch.float64)
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert torch.equal(layer.router.weight.grad, plain.router.weight.grad)


def test_the_imbalance_is_transformers():
    _, stored = numbers("experts", "balance.")
    probability = stored["logits"].softmax(-1)
    found = imbalance(probability, probability.topk(2, -1).indices)
    assert_close(found, stored["loss"].double(), rtol=1e-6, atol=0)


def test_even_use_is_the_least():
    even = torch.full((4, 4), 0.25)
    assert imbalance(even, torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]])) == 2
    assert_close(load(torch.tensor([[0], [0], [3]]), 4), torch.tensor([2 / 3, 0, 0, 1 / 3]))
    assert imbalance(torch.eye(4)[:1].expand(3, 4), torch.zeros(3, 1, dtype=torch.long)) == 4


def test_the_balance_evens_out():
    torch.manual_seed(0)
    layer = Experts(8, experts=4, top=1, balance=1.0).train()
    layer.router.weight.data[0] += 0.5
    x = torch.randn(256, 8).abs()
    before = imbalance(*layer.route(x))
    for _ in range(60):
        layer.zero_grad()
        (layer(x) * 0).sum().backward()
        layer.router.weight.data -= 0.5 * layer.router.weight.grad
    assert before > 2.5 and imbalance(*layer.route(x)) < 1.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_types_come_back(dtype):
    layer = Experts(8, shared=1).to(dtype)
    y = layer(torch.randn(3, 8, dtype=dtype))
    assert y.dtype == dtype and layer.route(torch.randn(3, 8, dtype=dtype))[0].dtype == torch.float32


def test_bad_numbers_are_refused():
    for keywords, said in (
        ({"top": 0}, "top is 0"),
        ({"top": 9}, "top is 9: it must be at most the 8 experts"),
        ({"hidden": 0}, "hidden is 0"),
        ({"shared": -1}, "shared is -1"),
        ({"balance": -0.1}, "balance is -0.1"),
    ):
        with pytest.raises(ValueError, match=said):
            Experts(8, **keywords)


def test_a_model_with_experts_streams_and_crosses_a_file(tmp_path):
    more = {"experts": {"experts": 4, "shared": 1, "balance": 0.1}}
    model = LanguageModel(vocabulary=7, width=16, depth=2, pattern="mingru", feed_forward="mlp,experts", memories=more)
    model.eval()
    tokens = torch.randint(7, (2, 9))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    assert_close(torch.cat([first, model(tokens[:, 4:], state)[0]], 1), whole)
    model.save_pretrained(tmp_path)
    assert torch.equal(LanguageModel.from_pretrained(tmp_path)(tokens)[0], whole)
    model(tokens)[0].square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def shared(**keywords):
    torch.manual_seed(0)
    pattern, after = "mingru*2,attention,mingru", "none*2,mlp,none"
    return Backbone(16, 8, pattern, feed_forward=after, shared=["attention"], **keywords).double().eval()


def test_a_shared_block_is_one_with_a_state_at_each_depth():
    backbone = shared()
    assert [type(b.mixer).__name__ for b in backbone.stack] == ["MinGRU", "MinGRU", "Attention", "MinGRU"] * 2
    assert backbone.stack[2] is backbone.stack[6] and len(backbone.blocks) == 7
    assert [b.mlp is None for b in backbone.stack] == [True, True, False, True] * 2
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    _, state = backbone(x)
    assert len(state) == 8 and not torch.equal(state[2][0], state[6][0])
    assert backbone.grows


def test_a_shared_block_is_as_copies_with_the_same_weights():
    """Copies of the block at each depth are the same function, and their gradients add up to that of the one."""
    one = shared()
    two = Backbone(16, 8, "mingru*2,attention,mingru", feed_forward="none*2,mlp,none").double().eval()
    for mine, theirs in zip(one.stack, two.stack, strict=True):
        theirs.load_state_dict(mine.state_dict())
    two.norm.load_state_dict(one.norm.state_dict())
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    (y, _), (z, _) = one(x), two(x)
    assert_close(y, z, rtol=1e-12, atol=1e-12)
    y.square().sum().backward()
    z.square().sum().backward()
    first, second = two.blocks[2], two.blocks[6]
    for name, p in one.stack[2].named_parameters():
        total = first.get_parameter(name).grad + second.get_parameter(name).grad
        assert_close(p.grad, total, rtol=1e-10, atol=1e-12)


def test_a_cut_or_a_reset_changes_nothing_in_a_shared_block():
    backbone = shared()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    whole, last = backbone(x)
    first, state = backbone(x[:, :4])
    second, after = backbone(x[:, 4:], state)
    assert_close(torch.cat([first, second], 1), whole, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(after, last, strict=True):
        assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[:, 4] = True
    assert_close(backbone(x, None, Clock(reset=reset))[0][:, 4:], backbone(x[:, 4:])[0], rtol=1e-10, atol=1e-12)


def test_a_shared_block_crosses_a_file(tmp_path):
    model = LanguageModel(vocabulary=7, width=16, depth=4, pattern="mingru,attention", shared=["attention"]).eval()
    tokens = torch.randint(7, (2, 9))
    model.save_pretrained(tmp_path)
    again = LanguageModel.from_pretrained(tmp_path)
    assert torch.equal(again(tokens)[0], model(tokens)[0]) and len(again.backbone.blocks) == 3


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="'lstm' is to be shared, but the pattern has none"):
        Backbone(16, 2, "gru", shared=["lstm"])
    with pytest.raises(ValueError, match="'gru' is shared: one block cannot be followed by mlp and by none"):
        Backbone(16, 2, "gru", feed_forward="mlp,none", shared=["gru"])
