"""H3 against its authors' code (tests/oracles/make_state_spaces.py), with heads of two features."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.h3 import H3


@each_way
def test_equals_its_authors_code(way):
    weights, values = numbers("state_spaces", "h3.")
    mixer = H3(4, head_width=2, units=6, taps=6).double()
    taps = weights["ssm_k_kernel.kernel.C"][0].clone()
    taps[:, 0] += weights["ssm_k_D"]
    write, read = (torch.view_as_complex(weights[f"kernel.kernel.{x}"].squeeze(0)) for x in ("B", "C"))
    state = {
        "shift.weight": taps.flip(1),
        "space.log_rate": weights["kernel.kernel.inv_A_real"],
        "space.frequency": weights["kernel.kernel.A_imag"],
        "space.read": torch.view_as_real(write * read),
        "space.log_step": weights["kernel.kernel.log_dt"],
        "space.skip": weights["D"],
        # their heads' features lie apart where they leave, together where they enter
        "out.weight": weights["output_linear.weight"].unflatten(1, (2, 2)).transpose(1, 2).flatten(1),
        "out.bias": weights["output_linear.bias"],
    }
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        state |= {f"{ours}.{x}": weights[f"{theirs}.{x}"] for x in ("weight", "bias")}
    mixer.load_state_dict(state)
    with use(way):
        assert_close(mixer(numbers("state_spaces")[1]["x"])[0], values["y"], rtol=1e-12, atol=1e-12)


def test_a_head_must_fit():
    with pytest.raises(ValueError, match="head_width"):
        H3(8, head_width=3)
