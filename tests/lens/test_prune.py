"""Silenced units are gone: what is left is the smaller network, and the one that was looked at is as it was."""

import pytest
import torch
from torch.testing import assert_close

from recurra.lens import prune
from recurra.mixers import MIXERS
from recurra.models import MODELS
from recurra.parts.cell import DenseCell
from recurra.tasks import make

PATH = "backbone.blocks.0.mixer.cell"
CELLS = {"elman": {}, "irnn": {}, "lstm": {"peepholes": True}, "gru": {}, "mgu": {}}


def build(pattern="elman", **keywords):
    model = MODELS["language_model"](
        vocabulary=2, width=8, depth=1, pattern=pattern, hidden=0, mixers={pattern: keywords} if keywords else None
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def batches(count=3, rows=4, length=12):
    task = make({"task": "parity"})
    return task, [task.batch("test", i, rows, length, 0) for i in range(count)]


@pytest.mark.parametrize("name", CELLS)
def test_what_is_left_is_the_smaller_cell(name):
    model, keep = build(name, **CELLS[name]), torch.tensor([1, 0, 0, 1, 1, 0, 1, 0]).bool()
    before = {k: x.clone() for k, x in model.state_dict().items()}
    whole, left = prune.cell_at(model, PATH), prune.cell_at(prune.silenced(model, PATH, keep), PATH)
    small = DenseCell(whole.rule, 8, 4)
    with torch.no_grad():
        small.input_weight.copy_(whole.input_weight[keep.repeat(whole.rule.drive)])
        small.bias.copy_(whole.bias[keep.repeat(whole.rule.drive)])
        small.weight.copy_(whole.weight[:, :, keep][..., keep])
        if whole.params is not None:
            small.params.copy_(whole.params[:, keep])
    x = torch.randn(3, 20, 8)
    y, _ = left(x, left.initial_state(3), None)
    expected, _ = small(x, small.initial_state(3), None)
    assert_close(y[..., keep], expected)
    assert not y[..., ~keep].any(), "silent for ever, not nearly"
    assert all(torch.equal(before[k], x) for k, x in model.state_dict().items())


def test_activity_is_what_the_units_say():
    model = build()
    _, some = batches()
    active = prune.activity(model, PATH, some)
    assert active.shape == (3 * 4 * 12, 8)
    mixer, norm = model.backbone.blocks[0].mixer, model.backbone.blocks[0].mixer_norm
    y, _ = mixer(norm(model.embedding(some[1].inputs)))
    assert torch.equal(active[48:96], y.flatten(0, 1) > 0)
    assert not prune.cell_at(model, PATH)._forward_hooks


def test_a_unit_that_does_what_two_others_do_together_is_not_kept():
    active = torch.rand(200, 6) < 0.5
    active[:, 4] = active[:, 0] & active[:, 2]
    active[:, 5] = active[:, 1]
    assert prune.by_patterns(active).tolist() == [True, True, True, True, False, False]


def test_the_wiring_of_a_chain_and_of_a_dense_network():
    cell = build()
    cell = prune.cell_at(cell, PATH)
    with torch.no_grad():
        cell.weight.mul_(0.01)
        # 0 -> 1 -> ... -> 7: rows read columns
        cell.weight[0, 0] += torch.eye(8).roll(1, 0).tril()
    assert prune.edges(cell, 7 / 64).nonzero().tolist() == [[i, i + 1] for i in range(7)]
    assert prune.components(cell, 7 / 64) == 8 and prune.by_wiring(cell, 7 / 64).tolist() == [True] * 7 + [False]
    assert prune.components(cell, 1.0) == 1 and not prune.by_wiring(cell, 1.0).any()


def test_magnitude_keeps_the_largest():
    cell = prune.cell_at(build("lstm"), PATH)
    sums = [
        sum(
            float((cell.input_weight[g * 8 + i].abs().sum() + cell.weight[g, 0, i].abs().sum()).detach())
            for g in range(4)
        )
        for i in range(8)
    ]
    best = sorted(range(8), key=lambda i: -sums[i])[:3]
    assert prune.by_magnitude(cell, 3).nonzero()[:, 0].tolist() == sorted(best)


def test_a_comparison_is_at_equal_numbers_of_units_and_changes_nothing():
    model = build("gru")
    task, some = batches()
    before = {k: x.clone() for k, x in model.state_dict().items()}
    found = prune.compare(model, task, PATH, some, least=2, strongest=0.1)
    assert [(x.method, x.like) for x in found] == [
        ("none", ""), ("patterns", ""), ("magnitude", "patterns"), ("random", "patterns"),
        ("wiring", ""), ("magnitude", "wiring"), ("random", "wiring"),
    ]  # fmt: skip
    for group in (found[1:4], found[4:]):
        assert len({x.units for x in group}) == 1 and group[0].units < 8
    outputs = torch.cat([model(batch.inputs)[0].detach() for batch in some])
    targets = torch.cat([batch.targets for batch in some])
    assert_close(found[0].score, float((outputs.argmax(-1) == targets).float().mean()))
    assert_close(found[0].loss, float(torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())))
    assert all(torch.equal(before[k], x) for k, x in model.state_dict().items())
    assert prune.compare(model, task, PATH, some, least=2, strongest=0.1) == found


def test_what_cannot_be_looked_at_is_refused():
    task, some = batches()
    with pytest.raises(ValueError, match="the model is training"):
        prune.compare(build().train(), task, PATH, some)
    with pytest.raises(ValueError, match=rf"no dense cell without a projection at 'cell'; there are {PATH}"):
        prune.compare(build(), task, "cell", some)
    with pytest.raises(ValueError, match="this model has none"):
        prune.cell_at(MIXERS["lstm"](8, hidden=12), "cell")
