"""The elementwise LSTM against the authors' code (tests/oracles/make_classical.py)."""

import contextlib

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.elstm import ELSTM

WEIGHTS, STORED = numbers("classical", "elstm.")
D = 8


@pytest.mark.parametrize("way", [contextlib.nullcontext(), use("loop"), use("newton")], ids=["fast", "loop", "newton"])
def test_equals_the_authors_code(way):
    mixer = ELSTM(D).double()
    gate = WEIGHTS["gate.weight"]
    mixer.load_state_dict(
        {
            "cell.input_weight": torch.cat([WEIGHTS["wm_f"], WEIGHTS["wm_z"]]),
            "cell.weight": torch.cat([WEIGHTS["wv_f"], WEIGHTS["wv_z"]]),
            "cell.bias": torch.cat([WEIGHTS["bias_f"], WEIGHTS["bias_z"]], 1)[0],
            "gate_input.weight": gate[:, :D],
            "gate_input.bias": WEIGHTS["gate.bias"],
            "gate_cell.weight": gate[:, D:],
        }
    )
    with way:
        y, (last,) = mixer(STORED["x"], (STORED["start"],))
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, STORED["cell"][:, -1], rtol=1e-12, atol=1e-12)


def test_the_forget_bias_is_added_in_one_place():
    bias = ELSTM(512, forget_bias=3.0).cell.bias.detach()
    assert 2.9 < float(bias[:512].mean()) < 3.1 and abs(float(bias[512:].mean())) < 0.1
