"""S4 against the authors' Cauchy kernel (tests/oracles/make_s4.py), and its start against HiPPO's own matrix."""

import itertools

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

import recurra
from recurra import Clock
from recurra.mixers.block.s4 import S4
from recurra.ops import Scan
from recurra.parts.hippo import legs


def _impulse(mixer, length, read=None):
    """What every feature answers to a single one, without its skip and what comes after."""
    records = []
    mixer.scan.register_forward_pre_hook(lambda _, given: records.append(given))
    x = torch.zeros(1, length, len(mixer.skip), dtype=torch.float64)
    x[:, 0] = 1
    mixer(x)
    (record, state, _), *_ = records
    record = record if read is None else record._replace(read=read(record))
    return Scan()(record, state)[0][0].T


@each_way
def test_equals_the_authors_kernel(way):
    theirs, other = numbers("s4")
    mixer = S4(4, units=8).double()
    mixer.load_state_dict(
        {
            **mixer.state_dict(),
            "log_rate": theirs["A_real"],
            "frequency": -theirs["A_imag"],
            "low": theirs["P"][0],
            "write": theirs["B"][0],
            "read": theirs["C"][0],
            "log_step": theirs["inv_dt"][:, 0],
        }
    )
    with recurra.use(way):
        assert_close(_impulse(mixer, 33), other["kernel"], rtol=1e-9, atol=1e-11)


@each_way
def test_it_starts_as_hippo(way):
    mixer, units = S4(3, units=8).double(), 8
    low = (torch.arange(units, dtype=torch.float64) + 0.5).sqrt()
    # read through p it answers as the matrix that it was made from does when it is read through p
    with recurra.use(way):
        got = _impulse(mixer, 40, read=lambda record: record.low.conj())
    for step, kernel in zip(mixer.log_step.exp(), got, strict=True):
        matrix, identity = legs(units), torch.eye(units, dtype=torch.float64)
        inverse = torch.linalg.inv(identity - step / 2 * matrix)
        h, want = step * inverse @ (2 * low.square()).sqrt(), []
        for _ in range(40):
            want.append(low @ h)
            h = inverse @ (identity + step / 2 * matrix) @ h
        # parameters are kept in float32
        assert_close(kernel, torch.stack(want), rtol=1e-4, atol=1e-5)


def test_irregular_steps_are_near_fine_regular_ones():
    """The trapezoid's rule is of second order: half the steps leave a quarter of the error."""
    torch.manual_seed(0)
    mixer = S4(4, units=8).double()
    mixer.log_step.data.fill_(-5)
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    dt = torch.tensor([[2.0, 1.0, 4.0, 1.0, 3.0, 2.0]], dtype=torch.float64)

    def at(parts):
        """The state where every step is cut into equal parts of a constant input."""
        return mixer(x.repeat_interleave(parts, 1), None, Clock(dt=dt.repeat_interleave(parts, 1) / parts))[1]

    finest = at(64)
    errors = [(at(parts) - finest).abs().max() for parts in (1, 2, 4, 8)]
    assert errors[0] < 0.05 * finest.abs().max()
    for coarse, fine in itertools.pairwise(errors):
        assert 3 < coarse / fine < 5
    regular = mixer(x.repeat_interleave(dt[0].long(), 1))[1]
    assert (at(1) - regular).abs().max() < 0.05 * finest.abs().max()


def test_units_come_in_pairs():
    for units in (0, 7):
        with pytest.raises(ValueError, match=f"units is {units}"):
            S4(8, units=units)


def test_the_skip_and_the_gate_come_after():
    mixer = S4(4, units=8).double()
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    captured = []
    mixer.scan.register_forward_hook(lambda _, __, out: captured.append(out[0]))
    y, _ = mixer(x)
    left, right = mixer.out(torch.nn.functional.gelu(captured[0] + mixer.skip * x)).chunk(2, -1)
    assert_close(y, left * right.sigmoid())
