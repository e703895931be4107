"""RWKV-7 against flash-linear-attention and, to their six digits, against the authors' package (make_delta.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.delta.rwkv7 import RWKV7
from recurra.mixers.outer.rwkv6 import RWKV6
from recurra.models.backbone import Backbone

RANKS = {"decay_rank": 3, "rate_rank": 2, "value_rank": 4, "gate_rank": 5}
MAPS = {"decay": "w", "rate": "a", "blend": "v", "gate": "g"}
CUT = 11


def of_fla(index):
    weights, stored = numbers("delta", f"rwkv7.{index}.")
    mixer = RWKV7(8, heads=2, layer=index, depth=2, **RANKS).double()
    state = {
        "shift.share": torch.stack([weights[f"x_{name}"].flatten() for name in "rwkvag"]),
        "removal": weights["k_k"],
        "replacement": weights["k_a"],
        "bonus": weights["r_k"],
        "norm.weight": weights["g_norm.weight"],
        "norm.bias": weights["g_norm.bias"],
    }
    names = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    state |= {f"{ours}.weight": weights[f"{theirs}.weight"] for ours, theirs in names.items()}
    for ours, theirs in MAPS.items():
        for part in ("0.weight", "2.weight", "2.bias"):
            if f"{theirs}_lora.lora.{part}" in weights:
                state[f"{ours}.{part}"] = weights[f"{theirs}_lora.lora.{part}"]
    mixer.load_state_dict(state)
    return mixer, stored


def of_rwkv(index):
    weights, stored = numbers("delta", f"rwkv.{index}.")
    mixer = RWKV7(8, heads=2, layer=index, depth=2, **RANKS).double()
    state = {
        "shift.share": torch.stack([weights[f"x_{name}"] for name in "rwkvag"]),
        "removal": weights["k_k"],
        "replacement": weights["k_a"],
        "bonus": weights["r_k"].view(2, 4),
        "norm.weight": weights["ln_w"],
        "norm.bias": weights["ln_b"],
    }
    names = {"receptance": "receptance", "key": "key", "value": "value", "out": "output"}
    state |= {f"{ours}.weight": weights[theirs].mT for ours, theirs in names.items()}
    for ours, theirs in MAPS.items():
        if ours != "blend" or index:
            state |= {f"{ours}.0.weight": weights[f"{theirs}1"].mT, f"{ours}.2.weight": weights[f"{theirs}2"].mT}
            state |= {f"{ours}.2.bias": weights[f"{theirs}0"]} if ours != "gate" else {}
    mixer.load_state_dict(state)
    return mixer, stored


def first_of(index, stored):
    """What the first layer shared, which the second one reads."""
    return stored["first"] if index else None


@each_way
@pytest.mark.parametrize("index", [0, 1])
def test_equals_flash_linear_attention(index, way):
    mixer, stored = of_fla(index)
    with use(way):
        y, (past, memory) = mixer(stored["x"], None, None, first_of(index, stored))
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(past, stored["x"][:, -1])
    assert_close(memory, stored["state"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", [0, 1])
def test_equals_the_authors_package(index):
    mixer, stored = of_rwkv(index)
    y, (_, memory) = mixer(stored["x"], None, None, first_of(index, stored))
    # they keep values first, and write exp(-1/2) with six digits
    assert_close(memory, stored["state"].mT, rtol=0, atol=1e-6 * memory.abs().max().item())
    assert_close(y, stored["y"], rtol=0, atol=1e-6 * y.abs().max().item())


def test_the_first_layer_shares_its_values():
    mixer, stored = of_fla(0)
    assert_close(mixer.share(stored["x"]), stored["first"], rtol=1e-12, atol=1e-12)
    _, state = mixer(stored["x"][:, :CUT])
    assert_close(mixer.share(stored["x"][:, CUT:], state), stored["first"][:, CUT:], rtol=1e-12, atol=1e-12)


def test_values_are_shared_at_the_steps_that_happened():
    mixer, _ = of_fla(0)
    later, _ = of_fla(1)
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    clock = Clock(torch.rand(2, 30) < 0.1, torch.rand(2, 30) < 0.6)
    assert clock.valid is not None and clock.reset is not None
    shared = mixer.share(x, None, clock)
    y, _ = later(x, None, clock, shared)
    for row in range(2):
        happened = clock.valid[row]
        own = Clock(clock.reset[row : row + 1, happened])
        alone = x[row : row + 1, happened]
        assert_close(shared[row, happened], mixer.share(alone, None, own)[0])
        assert_close(y[row, happened], later(alone, None, own, mixer.share(alone, None, own))[0][0])


def test_a_stack_hands_the_first_values_on_and_a_cut_changes_nothing():
    """The paper's block as a pattern, by hand; each layer knows its place."""
    mixers = {"rwkv7": {"heads": 2}, "channel_mix": {"receptance": False}}
    stack = Backbone(8, 6, "rwkv7,channel_mix", mixers, hidden=0).double()
    assert [block.mixer.config.get("layer") for block in stack.blocks] == [0, 0, 1, 1, 2, 2]
    with torch.no_grad():
        for p in stack.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randn(2, 19, 8, dtype=torch.float64, requires_grad=True)
    clock = Clock(torch.rand(2, 19) < 0.15, torch.rand(2, 19) < 0.8)
    whole, last = stack(x, None, clock)
    outputs, state = [], None
    for start, stop in ((0, 1), (1, 1), (1, 8), (8, 19)):
        y, state = stack(x[:, start:stop], state, clock.cut(start, stop))
        outputs.append(y)
    assert_close(torch.cat(outputs, 1), whole)
    assert_close(state, last)
    parameters = [x, *stack.parameters()]
    grads = torch.autograd.grad((whole**3).sum(), parameters)
    pieces = torch.autograd.grad((torch.cat(outputs, 1) ** 3).sum(), parameters)
    for one, other in zip(grads, pieces, strict=True):
        assert (one != 0).any()
        assert_close(one, other, rtol=1e-6, atol=1e-9)
    stream, first = x, None
    for block in stack.blocks:
        normal = block.mixer_norm(stream)
        reads = isinstance(block.mixer, RWKV7)
        if reads and first is None:
            first = block.mixer.share(normal, None, clock)
            more = ()
        else:
            more = (first,) if reads else ()
        stream = stream + block.mixer(normal, None, clock, *more)[0]
    assert_close(torch.where(clock.valid[..., None], stack.norm(stream) - whole, 0), torch.zeros_like(whole))


def test_values_that_are_missing_or_not_read_are_refused():
    x = torch.randn(1, 3, 8)
    with pytest.raises(ValueError, match="layer 1 of RWKV7 reads the first layer's values"):
        RWKV7(8, layer=1, depth=2)(x)
    with pytest.raises(ValueError, match="layer 0 of RWKV7 reads no other layer's values"):
        RWKV7(8)(x, None, None, x)
    with pytest.raises(ValueError, match="RWKV6 reads nothing of another layer: it cannot use `first`"):
        RWKV6(8)(x, None, None, x)


def test_it_starts_as_the_authors_have_it():
    for layer in (0, 5):
        mixer = RWKV7(256, layer=layer, depth=6)
        bow = torch.linspace(-1, 1, 64)
        bow = (bow * bow.abs()).repeat(4)
        up = (layer / 5) ** 0.3
        ramp = torch.linspace(0, 1, 256)
        assert_close(mixer.decay[2].bias, -6 + 6 * ramp ** (1 + up) + 0.5 + 2.5 * bow)
        assert_close(mixer.rate[2].bias, -0.19 + 0.3 * bow + 0.4 * (ramp - 0.5))
        assert_close(mixer.shift.share[1], 1 - (torch.arange(256) / 256) ** (0.9 * (1 - layer / 6)))
        assert [mixer.decay[0].out_features, mixer.rate[0].out_features, mixer.gate[0].out_features] == [32, 32, 64]
        weight = mixer.gate[2].weight
        assert_close(weight.mT @ weight, 0.01 * torch.eye(64), rtol=0, atol=1e-6)
        assert_close(mixer.norm.weight, torch.full((256,), ((1 + layer) / 6) ** 0.7))


def steps_of(mixer, x):
    """The matrix that each step moves the memory by, `(B, T, H, K, K)`, from the record that is scanned."""
    records = []
    hook = mixer.scan.register_forward_pre_hook(lambda _, given: records.append(given[0]))
    mixer(x)
    hook.remove()
    (record,) = records
    return torch.diag_embed(record.log_decay.exp()) + record.answer[..., :, None] * record.probe[..., None, :]


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5, 2.0])
def test_a_step_takes_at_most_its_strength_and_has_no_eigenvalue_below_minus_one(strength):
    mixer = RWKV7(8, heads=2, strength=strength).double()
    with torch.no_grad():
        for narrow in (mixer.decay, mixer.rate):
            narrow[0].weight.normal_(0, 3)
            narrow[2].weight.normal_(0, 3)
    values = torch.linalg.eigvals(steps_of(mixer, torch.randn(2, 50, 8, dtype=torch.float64)))
    assert_close(values.imag, torch.zeros_like(values.imag))
    assert values.real.abs().max() <= 1 + 1e-12
    with torch.no_grad():
        for narrow, bias in ((mixer.decay, -40.0), (mixer.rate, 40.0)):
            narrow[2].weight.zero_()
            narrow[2].bias.fill_(bias)
    # nothing fades and all is corrected
    values = torch.linalg.eigvals(steps_of(mixer, torch.randn(2, 50, 8, dtype=torch.float64))).real.sort().values
    ones = torch.ones_like(values)
    assert_close(values[..., 1:], ones[..., 1:])
    assert_close(values[..., 0], (1 - strength) * ones[..., 0], rtol=1e-3, atol=1e-3)


def test_with_the_greatest_strength_a_cut_changes_nothing_and_gradients_are_finite():
    mixer = RWKV7(8, heads=2, strength=2.0).double()
    with torch.no_grad():
        # hardly any fading, nearly everything turned
        mixer.decay[2].bias.fill_(-9.0)
        mixer.rate[2].bias.fill_(6.0)
    x = torch.randn(2, 700, 8, dtype=torch.float64, requires_grad=True)
    whole, last = mixer(x)
    head, state = mixer(x[:, :CUT])
    tail, state = mixer(x[:, CUT:], state)
    assert_close(torch.cat([head, tail], 1), whole)
    assert_close(state, last)
    (gradient,) = torch.autograd.grad(whole.square().sum(), x)
    assert gradient.isfinite().all() and gradient.abs().max() < 1e3


def test_a_layer_or_width_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"strength is 2.5: it must be above 0 and at most 2"):
        RWKV7(8, strength=2.5)
    with pytest.raises(ValueError, match="layer is 6: with a depth of 6 it must be at least 0 and less than that"):
        RWKV7(8, layer=6, depth=6)
    with pytest.raises(ValueError, match="width is 10: it must be a multiple of heads, which is 4"):
        RWKV7(10)
