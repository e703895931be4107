"""The Fourier forms of a constant diagonal and of a long convolution against their loops, and what they decline."""

import pytest
import torch
from ops.records import RECORDS
from torch.testing import assert_close

from recurra import Clock, use
from recurra.ops import MAX_PLUS, Diag, Scan, ShortConv
from recurra.ops.conv import fft as conv_fft, loop as conv_loop
from recurra.ops.diag import fft, loop
from recurra.ops.scan import prepare

KINDS = ("diag-constant", "diag-complex-constant")


def _outcome(module, record, state):
    inputs = [x.detach().requires_grad_() for x in (record.decay, record.drive, state)]
    read, last = module.scan(Diag(*inputs[:2]), inputs[2])
    torch.manual_seed(7)
    total = sum((x * torch.randn(x.shape, dtype=x.dtype)).sum() for x in (read, last))
    total = total.real if total.is_complex() else total
    return [read.detach(), last.detach(), *torch.autograd.grad(total, inputs)]


@pytest.mark.parametrize("steps", [2, 3, 64, 97, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loop(kind, steps):
    record, state = RECORDS[kind](steps, torch.float64)
    record = record._replace(decay=torch.cat([record.decay[:-2], 0 * record.decay[:1], -record.decay[:1].abs()]))
    assert fft.declines(record, state) is None
    assert_close(_outcome(fft, record, state), _outcome(loop, record, state), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_error_is_small_beside_the_largest_state(kind):
    record, state = RECORDS[kind](4096, torch.float64)
    exact, _ = loop.scan(record, state)
    half = torch.complex64 if exact.is_complex() else torch.float32
    got, _ = fft.scan(Diag(record.decay.to(half), record.drive.to(half)), state.to(half))
    truth, _ = loop.scan(Diag(*(x.to(half).to(exact.dtype) for x in record[:2])), state)
    assert (got - truth).abs().max() < 2e-6 * exact.abs().max()


def test_it_is_there_to_be_asked_for():
    record, state = RECORDS["diag-constant"](20, torch.float64)
    with use("fft"):
        read, last = Scan()(record, state)
    assert_close((read, last), loop.scan(record, state))


def test_every_decline_has_its_reason():
    record, state = RECORDS["diag-constant"](3, torch.float64)
    reasons = {
        "changes": record._replace(decay=record.decay.expand_as(record.drive)),
        "begins": record._replace(reset=torch.zeros(2, 3, dtype=torch.bool)),
        "max_plus": record._replace(ring=MAX_PLUS),
        "single": record._replace(drive=record.drive[:, :1]),
    }
    for reason, case in reasons.items():
        assert reason in (fft.declines(case, state) or "")


@pytest.mark.parametrize("steps", [2, 63, 64, 65, 130, 300])
@pytest.mark.parametrize("when", ["plain", "reset", "valid", "both"])
def test_a_long_convolution_equals_the_loop(steps, when):
    x, weight, bias, past = (torch.randn(*s, dtype=torch.float64) for s in ((2, steps, 3), (3, 100), (3,), (2, 99, 3)))
    reset = torch.rand(2, steps) < 0.03 if when in ("reset", "both") else None
    clock = Clock(reset, Clock.lengths([steps, steps // 3]).valid if when in ("valid", "both") else None)
    outcomes = []
    for module in (conv_fft, conv_loop):
        inputs = [p.clone().requires_grad_() for p in (x, weight, bias, past)]
        record, start = prepare(ShortConv(*inputs[:3]), inputs[3], clock)
        assert module.declines(record, start) is None
        read, last = module.scan(record, start)
        torch.manual_seed(7)
        total = sum((y * torch.randn_like(y)).sum() for y in (read, last))
        outcomes.append([read.detach(), last.detach(), *torch.autograd.grad(total, inputs)])
    assert_close(*outcomes, rtol=1e-10, atol=1e-10)


def test_a_reset_of_a_long_convolution_forgets_even_nan():
    x, past = torch.randn(1, 200, 3), torch.full((1, 99, 3), torch.nan)
    x[:, :80] = torch.nan
    reset = torch.arange(200)[None] == 80
    read, last = conv_fft.scan(ShortConv(x, torch.randn(3, 100), silu=False, reset=reset), past)
    assert torch.isfinite(read[:, 80:]).all() and torch.isfinite(last).all()


def test_few_taps_are_declined():
    record = ShortConv(torch.randn(1, 9, 3), torch.randn(3, 4))
    assert "taps" in (conv_fft.declines(record, torch.zeros(1, 3, 3)) or "")


@pytest.mark.parametrize("steps", [65, 100, 130])
def test_taps_from_before_a_sequence_are_left_out_where_it_begins(steps):
    past, outcomes = torch.zeros(2, 99, 3, dtype=torch.float64), []
    x, weight, pull = (torch.randn(*s, dtype=torch.float64) for s in ((2, steps, 3), (3, 100), (2, steps, 3)))
    for module in (conv_fft, conv_loop):
        inputs = [p.clone().requires_grad_() for p in (x, weight)]
        read, last = module.scan(ShortConv(*inputs, silu=False), past)
        outcomes.append([read.detach(), last.detach(), *torch.autograd.grad((read * pull).sum(), inputs)])
    assert_close(*outcomes, rtol=1e-10, atol=1e-10)
