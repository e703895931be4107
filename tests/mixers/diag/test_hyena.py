"""Hyena against its authors' code (tests/oracles/make_state_spaces.py), past its filters' length, and distilled."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import state as states, use
from recurra.mixers.diag.hyena import Hyena
from recurra.parts.filters import ImplicitFilters, ModalFilters

X = numbers("state_spaces")[1]["x"]


@each_way
def test_equals_its_authors_code(way):
    weights, values = numbers("state_spaces", "hyena.")
    mixer = Hyena(4, order=3, length=12)
    mixer.filters = ImplicitFilters(4, 2, 12, hidden=5, bands=2)
    mixer = mixer.double()
    net = "filter_fn.implicit_filter"
    state = {
        "inputs.weight": weights["in_proj.weight"],
        "inputs.bias": weights["in_proj.bias"],
        "conv.weight": weights["short_filter.weight"][:, 0],
        "conv.bias": weights["short_filter.bias"],
        "filters.frequency": weights[f"{net}.1.freq"][0],
        "filters.last.weight": weights[f"{net}.6.weight"],
        "skip": weights["filter_fn.bias"].unflatten(0, (4, 2)).t(),
        "out.weight": weights["out_proj.weight"],
        "out.bias": weights["out_proj.bias"],
    }
    for i in range(3):
        state |= {f"filters.layers.{i}.{x}": weights[f"{net}.{2 * i}.{x}"] for x in ("weight", "bias")}
    mixer.load_state_dict(state)
    with use(way):
        assert_close(mixer(X)[0], values["y"], rtol=1e-12, atol=1e-12)


def test_what_is_longer_ago_than_the_filter_is_forgotten():
    mixer = Hyena(8, length=20, conv=1).double()
    x = torch.randn(1, 100, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][:, 60].sum(), x)
    assert grad[:, :41].abs().max() < 1e-12 and (grad[:, 41:61] != 0).any(2).all()


@pytest.mark.parametrize("order", [2, 3])
def test_distilled_filters_are_as_far_off_as_they_say(order):
    mixer = Hyena(8, order=order, length=256).double()
    distilled, errors = mixer.distill(12)
    assert errors.shape == (order - 1, 8) and errors.max() < 0.1
    assert_close(distilled.skip, mixer.skip, rtol=0, atol=0)
    for i, make in enumerate(distilled.filters.records()):
        record = make(torch.zeros(1, 1, 8, dtype=torch.float64))
        powers = (torch.arange(512)[:, None, None] * record.log_decay).exp()
        made = (record.read * powers).sum(-1).real.t()
        kernel = torch.nn.functional.pad(mixer.filters.kernels()[i], (0, 256))
        assert_close((made - kernel).norm(dim=1) / kernel.norm(dim=1), errors[i])


@torch.no_grad()
def test_more_modes_are_nearer_and_the_output_follows():
    mixer = Hyena(8, length=256).double()
    x = torch.randn(2, 256, 8, dtype=torch.float64)
    y, last = mixer(x)
    off, worst = [], []
    for units in (2, 4, 16):
        distilled, errors = mixer.distill(units)
        got, small = distilled(x)
        off.append(float((got - y).norm() / y.norm()))
        worst.append(float(errors.mean()))
        assert states.nbytes(small) < states.nbytes(last) / 4
    assert worst[0] > worst[1] > worst[2] and off[0] > off[1] > off[2] and off[2] < 0.01


def test_a_sum_of_modes_is_found_again():
    filters = ModalFilters(3, 1, 4).double()
    log_decay = torch.complex(-torch.rand(3, 4) / 20 - 0.1, 0.4 + 0.6 * torch.arange(4).expand(3, -1)).cdouble()
    read = torch.randn(3, 4, dtype=torch.complex128)
    kernels = ((torch.arange(200)[:, None, None] * log_decay).exp() * read).sum(-1).real.t()[None]
    assert filters.imitate(kernels).max() < 1e-6
    assert_close(filters.frequency[0].sort().values, log_decay.imag, rtol=1e-6, atol=0)


def test_a_distilled_layer_obeys_the_law():
    mixer, _ = Hyena(8, length=64).double().distill(4)
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    y, last = mixer(x)
    state, outputs = None, []
    for piece in x.split([1, 12, 17], 1):
        out, state = mixer(piece, state)
        outputs.append(out)
    assert_close(torch.cat(outputs, 1), y)
    for one, other in zip(states.leaves(state), states.leaves(last), strict=True):
        assert_close(one, other)
    copy = Hyena(**mixer.config).double()
    copy.load_state_dict(mixer.state_dict())
    assert_close(copy(x)[0], y, rtol=0, atol=0)


def test_autocast_leaves_the_filters_alone():
    mixer = Hyena(8, length=100)
    with torch.autocast("cpu", torch.bfloat16):
        y, last = mixer(torch.randn(1, 90, 8))
        lowered = mixer.filters.kernels()
    assert_close(lowered, mixer.filters.kernels(), rtol=0, atol=0)
    assert y.dtype == torch.bfloat16 and all(x.dtype == torch.float32 for x in states.leaves(last))


def test_what_cannot_be_is_refused():
    for given, match in (({"order": 1}, "order"), ({"length": 1}, "length"), ({"units": 0}, "units")):
        with pytest.raises(ValueError, match=match):
            Hyena(8, **given)
    with pytest.raises(ValueError, match="already"):
        Hyena(8, units=4).distill(2)
