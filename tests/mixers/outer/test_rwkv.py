"""Time mixing of RWKV-4, 5 and 6 and channel mixing against the rwkv package (tests/oracles/make_rwkv.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers import MIXERS
from recurra.mixers.outer.channel_mix import ChannelMix
from recurra.mixers.outer.rwkv4 import RWKV4
from recurra.mixers.outer.rwkv5 import RWKV5
from recurra.mixers.outer.rwkv6 import RWKV6
from recurra.models.backbone import Backbone

CUT = 11
PROJECTIONS = {"key": "key", "value": "value", "receptance": "receptance", "gate": "gate", "output": "out"}


def square(weights):
    """Theirs go from rows to columns."""
    return {f"{ours}.weight": weights[theirs].mT for theirs, ours in PROJECTIONS.items() if theirs in weights}


def norm(weights):
    return {"norm.weight": weights["norm"], "norm.bias": weights["norm_bias"]}


def four():
    weights, stored = numbers("rwkv", "time_4.")
    mixer = RWKV4(8).double()
    share = 1 - torch.stack([weights[name] for name in "kvr"])
    mixer.load_state_dict(
        square(weights) | {"shift.share": share, "log_rate": weights["decay"], "bonus": weights["first"]}
    )
    return mixer, stored


def five():
    weights, stored = numbers("rwkv", "time_5.")
    mixer = RWKV5(8, heads=2).double()
    share = 1 - torch.stack([weights[name] for name in "rkvg"])
    state = {"shift.share": share, "log_rate": weights["decay"], "bonus": weights["first"]}
    mixer.load_state_dict(square(weights) | norm(weights) | state)
    return mixer, stored


def six():
    weights, stored = numbers("rwkv", "time_6.")
    mixer = RWKV6(8, heads=2, rank=3, decay_rank=3).double()
    state = {
        "share": torch.stack([weights[name] for name in "xwkvrg"]),
        "choose_in.weight": weights["choose_in"].mT,
        "choose_out": weights["choose_out"].mT,
        "decay_in.weight": weights["decay_in"].mT,
        "decay_out.weight": weights["decay_out"].mT,
        "decay_out.bias": weights["decay"].flatten(),
        "bonus": weights["first"],
    }
    mixer.load_state_dict(square(weights) | norm(weights) | state)
    return mixer, stored


@each_way
@pytest.mark.parametrize("built", [five, six])
def test_the_matrix_memories_equal_rwkv(built, way):
    mixer, stored = built()
    with use(way):
        y, (past, memory) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, stored["last"])
    assert_close(memory, stored["state.0"], rtol=1e-12, atol=1e-12)


@each_way
def test_rwkv_4_equals_rwkv(way):
    mixer, stored = four()
    with use(way):
        y, (past, peak, sums) = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, stored["last"])
    assert_close(sums, torch.stack([stored["state.0"], stored["state.1"]], -1), rtol=1e-12, atol=1e-12)
    assert_close(peak, stored["state.2"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("built", [four, five, six])
def test_many_tokens_continue_from_a_carried_state(built):
    mixer, stored = built()
    _, state = mixer(stored["x"][:, :CUT])
    y, _ = mixer(stored["x"][:, CUT:], state)
    assert_close(y, stored["y"][:, CUT:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [4, 6])
def test_channel_mixing_equals_rwkv(number):
    weights, stored = numbers("rwkv", f"channel_{number}.")
    mixer = ChannelMix(8, hidden=5).double()
    share = torch.stack([weights["k"], weights["r"]])
    mixer.load_state_dict(square(weights) | {"shift.share": 1 - share if number == 4 else share})
    y, past = mixer(stored["x"])
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, stored["last"])


def test_channel_mixing_of_rwkv_7_has_no_gate():
    mixer = ChannelMix(8, receptance=False).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    before = torch.cat([torch.zeros(2, 1, 8, dtype=torch.float64), x[:, :-1]], 1)
    key = mixer.key(x + mixer.shift.share[0] * (before - x))
    assert_close(mixer(x)[0], mixer.value(key.relu() ** 2))


@pytest.mark.parametrize("name, low, high", [("rwkv4", -5, 3), ("rwkv5", -6, -1), ("rwkv6", -6, -1)])
def test_decays_start_from_slow_to_fast(name, low, high):
    for layer in (0, 5):
        mixer = MIXERS[name](64, layer=layer, depth=6)
        rates = (mixer.decay_out.bias if name == "rwkv6" else mixer.log_rate).flatten()
        assert_close(rates[[0, -1]], torch.tensor([low, high]).float())
        # later layers are slower: what they hold lasts
        assert (rates[32] < (low + high) / 2) == (layer == 5)


@pytest.mark.parametrize("name", ["rwkv4", "rwkv5", "rwkv6", "channel_mix"])
def test_a_layer_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="layer is 6: with a depth of 6 it must be at least 0 and less than that"):
        MIXERS[name](8, layer=6, depth=6)


@pytest.mark.parametrize("cls", [RWKV5, RWKV6])
def test_a_width_that_heads_do_not_divide_is_refused(cls):
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        cls(10)


def test_the_papers_block_is_a_pattern():
    """Time mixing, then channel mixing, each on a norm of the stream and added to it; both carry their step before."""
    stack = Backbone(8, 4, "rwkv4,channel_mix", hidden=0).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    whole, last = stack(x)
    first, state = stack(x[:, :4])
    second, end = stack(x[:, 4:], state)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(end, last)
    stream = x
    for block in stack.blocks:
        stream = stream + block.mixer(block.mixer_norm(stream))[0]
    assert_close(stack.norm(stream), whole)
