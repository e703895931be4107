"""Memories in place of some feed-forward layers of a stack."""

import pytest
import torch
from torch.testing import assert_close

from recurra.memory import MEMORIES
from recurra.memory.product_key_memory import ProductKeyMemory
from recurra.models import LanguageModel
from recurra.models.backbone import Backbone, GatedMLP


def test_a_pattern_says_where_memories_stand():
    backbone = Backbone(
        16, 5, "lstm", hidden=24, feed_forward="mlp*2,product_key_memory", memories={"product_key_memory": {"keys": 9}}
    )
    kinds = [type(block.mlp) for block in backbone.blocks]
    assert kinds == [GatedMLP, GatedMLP, ProductKeyMemory, GatedMLP, GatedMLP]
    assert backbone.blocks[2].mlp.values.shape == (81, 16)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_model_with_memories_streams_and_crosses_a_file(name, tmp_path):
    model = LanguageModel(vocabulary=7, width=16, depth=2, pattern="mingru", hidden=0, feed_forward=name).eval()
    tokens = torch.randint(7, (2, 9))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    second, _ = model(tokens[:, 4:], state)
    assert_close(torch.cat([first, second], 1), whole)
    model.save_pretrained(tmp_path)
    assert_close(LanguageModel.from_pretrained(tmp_path)(tokens)[0], whole, rtol=0, atol=0)
    model(tokens)[0].square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def test_weight_decay_leaves_values_alone():
    model = LanguageModel(vocabulary=7, width=16, depth=1, pattern="gru", feed_forward="product_key_memory")
    alone = model.undecayed_parameters()
    assert "backbone.blocks.0.mlp.values.weight" in alone and "backbone.blocks.0.mlp.keys" not in alone


def test_bad_patterns_are_refused():
    with pytest.raises(ValueError, match="no feed-forward layer 'hopfeld', did you mean 'hopfield'"):
        Backbone(16, 1, "gru", feed_forward="hopfeld")
    with pytest.raises(ValueError, match="keywords are given for 'hopfield', but the pattern 'mlp' has none"):
        Backbone(16, 1, "gru", memories={"hopfield": {}})
    with pytest.raises(ValueError, match="hopfield has no keyword 'pattern', did you mean 'patterns'"):
        Backbone(16, 1, "gru", feed_forward="hopfield", memories={"hopfield": {"pattern": 3}})
