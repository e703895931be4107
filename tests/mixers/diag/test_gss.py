"""GSS against an independent package (tests/oracles/make_state_spaces.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.gss import GSS


@each_way
def test_equals_the_package(way):
    weights, values = numbers("state_spaces", "gss.")
    mixer = GSS(4, units=3, narrow=2, expand=2).double()
    mixer.load_state_dict(
        {
            "narrow.weight": weights["to_v.0.weight"],
            "wide.weight": weights["to_u.0.weight"],
            "norm.weight": weights["dss.norm.weight"],
            "norm.bias": weights["dss.norm.bias"],
            "log_rate": weights["dss.Lambda_real"],
            "log_frequency": weights["dss.Lambda_imag"],
            "read": torch.stack([weights["dss.C_real"], weights["dss.C_imag"]], -1),
            "skip": weights["dss.param_D"],
            "gate.weight": weights["to_gate.weight"],
            "out.weight": weights["to_out.weight"],
            "out.bias": weights["to_out.bias"],
        }
    )
    with use(way):
        assert_close(mixer(numbers("state_spaces")[1]["x"])[0], values["y"], rtol=1e-12, atol=1e-12)


def test_no_narrow_features_are_refused():
    with pytest.raises(ValueError, match="narrow is 0"):
        GSS(8, narrow=0)
