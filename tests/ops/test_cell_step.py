"""Planned steps: the same numbers as any other way, whatever changes between two steps, and hooks that see all."""

import copy

import pytest
import torch
from ops.test_cell_native import RULES, _make
from torch.testing import assert_close

from recurra import MIXERS, Clock, use
from recurra.ops import Rule, Scan, ShortConv, native as door
from recurra.ops.cell import loop, rules
from recurra.ops.grouped import native as grouped
from recurra.ops.native import direct
from recurra.parts.blocks import BlockLinear, beside
from recurra.parts.cell import DenseCell
from recurra.parts.conv import ShortConvolution
from recurra.state import leaves

pytestmark = pytest.mark.skipif(door.available() is not None, reason=str(door.available()))

D = 16
NAMES = ["elman", "lstm", "gru", "slstm"]


def _scan(module):
    return [x for x in module.modules() if isinstance(x, Scan)][-1]


def _stepped(name, batch=1, **keywords):
    """A mixer that has planned, one more step's input and the state before it."""
    mixer, x = MIXERS[name](D, **keywords), torch.randn(batch, 1, D)
    with torch.no_grad():
        _, state = mixer(x)
        for _ in range(2):
            _, state = mixer(x, state)
    assert _scan(mixer).plan is not None
    return mixer, torch.randn(batch, 1, D), state


@torch.no_grad()
def _same(mixer, x, state, clock=None):
    with use("loop"):
        want = mixer(x, state, clock)
    assert_close(mixer(x, state, clock), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "T", "heads", "d", "inputs"), [
    (1, 1, 1, 16, 16), (2, 3, 2, 20, 5), (8, 1, 1, 33, 7), (4, 5, 1, 9, None),
])  # fmt: skip
@pytest.mark.parametrize("name", RULES)
@torch.no_grad()
def test_a_planned_step_equals_the_loop(name, B, T, heads, d, inputs, dtype):
    record, state = _make(RULES[name], B, T, heads, d, dtype, inputs)
    scan, before = Scan(), [x.clone() for x in state]
    scan(record, state)
    planned = None if scan.plan is None else scan.plan(record, state)
    if RULES[name].operator != "diagonal" or RULES[name].params == 0:
        assert planned is not None
        tolerance = 1e-11 if dtype == torch.float64 else 1e-5
        assert_close(planned, loop.scan(record, state), rtol=tolerance, atol=tolerance)
    assert_close(list(state), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_gives_away_memory_of_its_own(name):
    mixer, x, state = _stepped(name)
    with torch.no_grad():
        y, after = mixer(x, state)
        again = mixer(x, after)[0].clone()
        y.zero_()
        assert_close(mixer(x, after)[0], again, rtol=0, atol=0)


def _train(mixer):
    optimizer = torch.optim.SGD(mixer.parameters(), lr=0.5)
    mixer(torch.randn(2, 5, D))[0].sum().backward()
    optimizer.step()


CHANGES = {
    "an optimiser": _train,
    "load_state_dict": lambda mixer: mixer.load_state_dict(MIXERS[_name(mixer)](D).state_dict()),
    "load_state_dict, assigned": lambda mixer: mixer.load_state_dict(MIXERS[_name(mixer)](D).state_dict(), assign=True),
    "written through data": lambda mixer: mixer.cell.weight.data.mul_(2),
    "data replaced": lambda mixer: setattr(mixer.cell.weight, "data", torch.randn_like(mixer.cell.weight)),
    "data transposed where it lies": lambda mixer: setattr(mixer.cell.weight, "data", mixer.cell.weight.data.mT),
    "a new parameter": lambda mixer: setattr(mixer.cell, "bias", torch.nn.Parameter(torch.randn_like(mixer.cell.bias))),
    "there and back": lambda mixer: mixer.double().float(),
    "wider": lambda mixer: mixer.double(),
    "lower": lambda mixer: mixer.bfloat16(),
    "a parametrisation": lambda mixer: torch.nn.utils.parametrizations.weight_norm(mixer.cell, "input_weight"),
}


def _name(mixer):
    return type(mixer).__name__.lower()


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_weights_that_change_are_seen(name, how):
    mixer, x, state = _stepped(name)
    with torch.no_grad():
        before = mixer(x, state)[0]
    CHANGES[how](mixer)
    x = x.to(mixer.cell.input_weight.dtype)
    _same(mixer, x, state)
    if how not in ("there and back", "wider", "lower", "a parametrisation"):
        with torch.no_grad():
            assert not torch.equal(mixer(x, state)[0], before)


@pytest.mark.parametrize("name", NAMES)
def test_everything_else_goes_the_ordinary_way(name):
    mixer, x, state = _stepped(name)
    steps = torch.ones(1, 1, dtype=torch.bool)
    for clock in (Clock(reset=steps), Clock(valid=~steps), Clock(valid=steps)):
        _same(mixer, x, state, clock)
    _same(mixer, torch.randn(3, 1, D), mixer.initial_state(3))
    _same(mixer, torch.randn(1, 7, D), state)
    _same(mixer, torch.randn(1, 1, 2 * D)[..., ::2], state)
    # gradients
    y, _ = mixer(x.clone().requires_grad_(), state)
    assert y.requires_grad
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert {x.dtype for x in leaves(mixer(x, state)[1])} == {torch.float32}


def test_use_is_asked_first():
    mixer, x, state = _stepped("lstm")
    with torch.no_grad(), use("torch"), pytest.raises(ValueError, match="only torch"):
        _scan(mixer)(*_seen(mixer, x, state, driven=True))


def _seen(mixer, x, state, driven=False):
    """The record and state that a mixer's scan is given."""
    seen = []
    handle = _scan(mixer).register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    with torch.no_grad():
        mixer(x, state)
    handle.remove()
    return seen[0].driven() if driven else seen[0], seen[1]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_hooks_see_planned_steps(name):
    mixer, x, state = _stepped(name)
    for module in (mixer, _scan(mixer)):
        seen = []
        handles = [module.register_forward_hook(lambda *_: seen.append(1)),  # noqa: B023
                   module.register_forward_pre_hook(lambda *_: seen.append(1))]  # fmt: skip  # noqa: B023
        mixer(x, state)
        assert len(seen) == 2, type(module).__name__
        for handle in handles:
            handle.remove()
    names = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: names.append(type(module)))
    mixer(x, state)
    handle.remove()
    assert {Scan, type(mixer)} <= set(names)


@torch.no_grad()
def test_a_hook_may_change_what_comes_out():
    mixer, x, state = _stepped("elman")
    with _scan(mixer).register_forward_hook(lambda module, inputs, outputs: (outputs[0] + 1, outputs[1])):
        shifted = mixer(x, state)[0]
    assert_close(shifted, mixer(x, state)[0] + 1)


def test_a_copy_plans_for_itself():
    mixer, x, state = _stepped("gru")
    twin = copy.deepcopy(mixer)
    assert _scan(twin).plan is None and _scan(mixer).plan is not None
    with torch.no_grad():
        twin.cell.bias.add_(1)
    _same(twin, x, state)
    _same(mixer, x, state)


@torch.no_grad()
def test_a_plan_is_for_its_own_kind_only():
    mixer, x, state = _stepped("lstm")
    scan, (record, _) = _scan(mixer), _seen(mixer, x, state)
    assert scan.plan(record, state) is not None
    other = Rule("other", rules.lstm, 4, 4, state=2)
    for wrong in (
        {"rule": other}, {"bias": None}, {"weight": record.weight[..., :8]}, {"weight": record.weight.mT},
        {"drive": x.double()}, {"drive": x[:, :, 1:]}, {"reset": torch.ones(1, 1, dtype=torch.bool)},
        {"valid": torch.ones(1, 1, dtype=torch.bool)}, {"project": torch.ones(D, D)}, {"drive": x.to("meta")},
        {"weight": record.weight.to("meta")}, {"input_weight": record.input_weight.double()},
    ):  # fmt: skip
        assert scan.plan(record._replace(**wrong), state) is None, wrong
    for wrong in (state[:1], (*state, state[0]), tuple(part[0] for part in state), tuple(part[:, 1:] for part in state),
                  tuple(part.double() for part in state), tuple(part.to("meta") for part in state)):  # fmt: skip
        assert scan.plan(record, wrong) is None


@torch.no_grad()
def test_two_threads_take_the_same_step():
    cell = DenseCell(rules.LSTM, 320, 320)
    x, state = torch.randn(1, 1, 320), cell.initial_state(1)
    one = [cell(x, state, None) for _ in range(2)][1]
    torch.set_num_threads(2)
    try:
        two = cell(x, state, None)
    finally:
        torch.set_num_threads(1)
    assert_close(two, one)


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (2, 5)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_planned_short_convolution_equals_the_loop(batch, steps, bias):
    conv = ShortConvolution(D, bias=bias)
    state = torch.randn(batch, 3, D)
    for _ in range(3):
        x = torch.randn(batch, steps, D)
        with use("loop"):
            want = conv(x, state, None)
        got = conv(x, state, None)
        assert_close(got, want, rtol=1e-5, atol=1e-6)
        state = got[1]
    record = ShortConv(x, conv.weight, conv.bias)
    assert conv.scan.plan(record, state) is not None
    for wrong in (
        {"silu": False}, {"x": x.double()}, {"x": x[..., 1:]}, {"weight": conv.weight.T}, {"weight": conv.weight + 0},
        {"bias": None if bias else torch.ones(D)}, {"reset": torch.ones(batch, steps, dtype=torch.bool)},
    ):  # fmt: skip
        assert conv.scan.plan(record._replace(**wrong), state) is None, wrong
    torch.set_num_threads(2)
    try:
        assert conv.scan.plan(record, state) is None
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("blocks", "size"), [(8, 4), (16, 1), (7, 3), (5, 24), (4, 32), (3, 40)])
@torch.no_grad()
def test_blocks_beside_each_other(blocks, size):
    layers = [BlockLinear(blocks * size, blocks) for _ in range(4)]
    for rows in (1, 5):
        one, two = (torch.randn(rows, 2, blocks * size) for _ in range(2))
        want = torch.cat([layer(x) for layer, x in zip(layers, (one, one, two, two), strict=True)], -1)
        assert grouped.quick((one, two), [layer.weight for layer in layers]) is not None
        assert_close(beside(layers, one, two), want, rtol=1e-5, atol=1e-5)
        assert_close(beside(layers, one, one), torch.cat([layer(one) for layer in layers], -1), rtol=1e-5, atol=1e-5)
        with torch.inference_mode():
            inside = [x.clone() for x in (one, two)]
            assert grouped.quick(inside, [layer.weight for layer in layers]) is not None
            assert_close(beside(layers, *inside), want, rtol=1e-5, atol=1e-5)
        seen = []
        with layers[3].register_forward_hook(lambda *_: seen.append(1)):  # noqa: B023
            beside(layers, one, two)
        assert seen


@torch.no_grad()
def test_autocast_chooses_the_type_of_one_row_as_of_many():
    layers, x = [BlockLinear(D, 2) for _ in range(4)], torch.randn(1, 1, D)
    beside(layers, x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert beside(layers, x, x).dtype == beside(layers, *[torch.randn(9, 9, D)] * 2).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_default_device_is_not_where_steps_are_taken(name):
    mixer, x, state = _stepped(name)
    want = mixer(x, state)
    for fresh in (mixer, copy.deepcopy(mixer)):
        with torch.device("meta"):
            for _ in range(2):
                got = fresh(x, state)
        for one, other in zip(leaves(got), leaves(want), strict=True):
            assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_without_a_private_part_of_torch_there_are_no_plans(name, monkeypatch):
    mixer, x, state = _stepped(name)
    want, fresh = mixer(x, state), copy.deepcopy(mixer)
    monkeypatch.setattr(direct, "TensorGuards", None)
    monkeypatch.setattr(grouped, "_plans", {})
    for one, other in zip(leaves(fresh(x, state)), leaves(want), strict=True):
        assert_close(one, other)
    assert _scan(fresh).plan is None and not grouped._plans


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_transform_is_seen_before_and_after_plain_steps(name):
    mixer, x, state = _stepped(name, batch=3)
    with use("loop"):
        want = mixer(x, state)[0]
    several = torch.vmap(lambda x: mixer(x, state)[0])
    for _ in range(2):
        assert_close(several(x[None])[0], want)
        plan, _scan(mixer).plan = _scan(mixer).plan, None
        assert plan is not None
        assert_close(mixer(x, state)[0], want)
        assert _scan(mixer).plan is not None


def leaky(drive, recur, state, log_rate):
    """A cell of nobody's."""
    h, trace = state
    trace = trace + torch.exp(log_rate) * (torch.tanh(drive[0] + recur[0]) - trace)
    h = torch.sigmoid(drive[1] + recur[1]) * torch.tanh(trace + h)
    return h, (h, trace)


@torch.no_grad()
def test_a_cell_of_ones_own_is_planned():
    cell = DenseCell(Rule("leaky", leaky, 2, 2, state=2, params=1), D, D)
    x, state = torch.randn(1, 1, D), cell.initial_state(1)
    for _ in range(3):
        want = loop.scan(_seen_record(cell, x), state)
        got = cell(x, state, None)
        assert_close(got, want)
        state = got[1]
    assert cell.scan.plan is not None


def _seen_record(cell, x):
    seen = []
    with cell.scan.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        cell(x, cell.initial_state(1), None)
    return seen[0]
