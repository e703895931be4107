"""MGU against torchrecurrent (the paper's form; tests/oracles/make_classical.py) and by hand (the compiled one)."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.cell.mgu import MGU

WEIGHTS, STORED = numbers("classical", "mgu.")
D = 8


def test_equals_torchrecurrent():
    mixer = MGU(D, reset="before").double()
    mixer.load_state_dict(
        {
            "cell.input_weight": WEIGHTS["weight_ih"],
            "cell.weight": WEIGHTS["weight_hh"].view(2, 1, D, D),
            "cell.bias": WEIGHTS["bias_ih"] + WEIGHTS["bias_hh"],
        }
    )
    first, state = mixer(STORED["x"][:, :7], (STORED["start"],))
    second, (last,) = mixer(STORED["x"][:, 7:], state)
    assert_close(torch.cat([first, second], 1), STORED["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, STORED["y"][:, -1], rtol=1e-12, atol=1e-12)


def test_after_by_hand():
    mixer = MGU(D).double()
    cell = mixer.cell
    with torch.no_grad():
        cell.params.normal_()
        cell.bias.normal_()
    x, h = torch.randn(2, 9, D, dtype=torch.float64), torch.zeros(2, D, dtype=torch.float64)
    forget_in, candidate_in = cell.input_weight.chunk(2)
    forget_bias, candidate_bias = cell.bias.chunk(2)
    y, _ = mixer(x)
    for t in range(9):
        f = (x[:, t] @ forget_in.T + h @ cell.weight[0, 0].T + forget_bias).sigmoid()
        past = h @ cell.weight[1, 0].T + cell.params[0]
        h = torch.lerp(h, (x[:, t] @ candidate_in.T + candidate_bias + f * past).tanh(), f)
        assert_close(y[:, t], h)


def test_without_products_both_forms_are_one():
    """Where R mixes no units the gate commutes with it."""
    after, before = MGU(D).double(), MGU(D, reset="before").double()
    with torch.no_grad():
        after.cell.weight[1, 0] = torch.diag(torch.randn(D, dtype=torch.float64))
    before.load_state_dict({k: v for k, v in after.state_dict().items() if k != "cell.params"})
    x = torch.randn(2, 9, D, dtype=torch.float64)
    assert_close(after(x)[0], before(x)[0])


def test_another_reset_is_refused():
    with pytest.raises(ValueError, match="reset is 'never': it must be one of after, before"):
        MGU(D, reset="never")
