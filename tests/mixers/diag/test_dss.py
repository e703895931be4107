"""Both forms of DSS against its authors' code (tests/oracles/make_state_spaces.py), and what is tied to a length."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.dss import DSS

X = numbers("state_spaces")[1]["x"]


def build(form, length):
    weights, values = numbers("state_spaces", f"dss-{form}.")
    mixer = DSS(4, units=3, length=length).double()
    if form == "exp":
        log_rate, frequency = weights["kernel.Lambda_log_neg_re"], weights["kernel.Lambda_im"]
    else:
        log_rate, frequency = (-weights["kernel.Lambda"][:, 0]).log(), weights["kernel.Lambda"][:, 1]
    mixer.load_state_dict(
        {
            "log_rate": log_rate,
            "frequency": frequency,
            "log_step": weights["kernel.log_dt"],
            "read": weights["kernel.W"][0],
            "skip": weights["D"][0],
            "out.weight": weights["output_linear.weight"],
            "out.bias": weights["output_linear.bias"],
        }
    )
    return mixer, values["y"]


@each_way
@pytest.mark.parametrize(("form", "length"), [("exp", None), ("softmax", 12)])
def test_equals_its_authors_code(form, length, way):
    mixer, y = build(form, length)
    with use(way):
        assert_close(mixer(X)[0], y, rtol=1e-12, atol=1e-12)


def test_the_softmax_form_keeps_its_length():
    mixer, y = build("softmax", 12)
    assert_close(mixer(X[:, :7])[0], y[:, :7], rtol=1e-12, atol=1e-12)
    other, _ = build("softmax", 7)
    assert not torch.allclose(other(X)[0], y)


def test_it_starts_with_the_rates_of_its_authors():
    weights, _ = numbers("state_spaces", "dss-exp.")
    mixer = DSS(4, units=3)
    # theirs descend
    assert_close(mixer.frequency, weights["kernel.Lambda_im"].flip(0).float())
    assert_close(mixer.log_rate.exp(), torch.full((3,), 0.5))


def test_no_length_is_refused():
    with pytest.raises(ValueError, match="length is 0"):
        DSS(8, length=0)
